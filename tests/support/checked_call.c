/* SPDX-License-Identifier: Apache-2.0
 * The call itself is assembly: a C compiler would save the registers in question round it. */
#include "tests/support/checked_call.h"

#if defined(__x86_64__)

/* rbx, rbp, r12..r15 hold canaries across the call, rsp is looked at too, and the direction flag must be clear. */
__asm__(".text\n"
        ".type xn_checked_call_x86, @function\n"
        "xn_checked_call_x86:\n"
        "    push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
        "    sub $24, %rsp\n"
        "    mov %rsp, 8(%rsp)\n"
        "    mov %rdi, %rax\n"
        "    mov %rsi, %r10\n"
        "    mov (%r10), %rdi\n mov 8(%r10), %rsi\n mov 16(%r10), %rdx\n mov 24(%r10), %rcx\n"
        "    mov 32(%r10), %r8\n mov 40(%r10), %r9\n"
        "    movabs $0x1111111111111111, %rbx\n"
        "    movabs $0x2222222222222222, %rbp\n"
        "    movabs $0x3333333333333333, %r12\n"
        "    movabs $0x4444444444444444, %r13\n"
        "    movabs $0x5555555555555555, %r14\n"
        "    movabs $0x6666666666666666, %r15\n"
        "    call *%rax\n"
        "    pushf\n"
        "    pop %rdx\n"
        "    mov $1, %eax\n movabs $0x1111111111111111, %rcx\n cmp %rcx, %rbx\n jne 1f\n"
        "    mov $2, %eax\n movabs $0x2222222222222222, %rcx\n cmp %rcx, %rbp\n jne 1f\n"
        "    mov $3, %eax\n movabs $0x3333333333333333, %rcx\n cmp %rcx, %r12\n jne 1f\n"
        "    mov $4, %eax\n movabs $0x4444444444444444, %rcx\n cmp %rcx, %r13\n jne 1f\n"
        "    mov $5, %eax\n movabs $0x5555555555555555, %rcx\n cmp %rcx, %r14\n jne 1f\n"
        "    mov $6, %eax\n movabs $0x6666666666666666, %rcx\n cmp %rcx, %r15\n jne 1f\n"
        "    mov $7, %eax\n cmp %rsp, 8(%rsp)\n jne 1f\n"
        "    mov $8, %eax\n test $0x400, %edx\n jnz 1f\n"
        "    xor %eax, %eax\n"
        "1:  cld\n"
        "    add $24, %rsp\n"
        "    pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n"
        "    ret\n"
        ".size xn_checked_call_x86, .-xn_checked_call_x86\n");
int xn_checked_call_x86(void (*function)(void), const uint64_t *arguments);

int xn_checked_call(void (*function)(void), const uint64_t arguments[XN_CHECKED_ARGUMENTS])
{
    return xn_checked_call_x86(function, arguments);
}

#elif defined(__aarch64__)

/* x19..x28 and the low halves of v8..v15. */
__asm__(".text\n"
        ".type xn_checked_call_arm, %function\n"
        "xn_checked_call_arm:\n"
        "    stp x29, x30, [sp, #-176]!\n"
        "    stp x19, x20, [sp, #16]\n stp x21, x22, [sp, #32]\n stp x23, x24, [sp, #48]\n"
        "    stp x25, x26, [sp, #64]\n stp x27, x28, [sp, #80]\n"
        "    stp d8, d9, [sp, #96]\n stp d10, d11, [sp, #112]\n stp d12, d13, [sp, #128]\n stp d14, d15, [sp, #144]\n"
        "    mov x9, x0\n mov x10, x1\n"
        "    ldp x0, x1, [x10]\n ldp x2, x3, [x10, #16]\n ldp x4, x5, [x10, #32]\n"
        "    mov x19, #19\n mov x20, #20\n mov x21, #21\n mov x22, #22\n mov x23, #23\n"
        "    mov x24, #24\n mov x25, #25\n mov x26, #26\n mov x27, #27\n mov x28, #28\n"
        "    fmov d8, x19\n fmov d9, x20\n fmov d10, x21\n fmov d11, x22\n"
        "    fmov d12, x23\n fmov d13, x24\n fmov d14, x25\n fmov d15, x26\n"
        "    blr x9\n"
        "    mov w0, #1\n cmp x19, #19\n b.ne 1f\n"
        "    mov w0, #2\n cmp x20, #20\n b.ne 1f\n"
        "    mov w0, #3\n cmp x21, #21\n b.ne 1f\n"
        "    mov w0, #4\n cmp x22, #22\n b.ne 1f\n"
        "    mov w0, #5\n cmp x23, #23\n b.ne 1f\n"
        "    mov w0, #6\n cmp x24, #24\n b.ne 1f\n"
        "    mov w0, #7\n cmp x25, #25\n b.ne 1f\n"
        "    mov w0, #8\n cmp x26, #26\n b.ne 1f\n"
        "    mov w0, #9\n cmp x27, #27\n b.ne 1f\n"
        "    mov w0, #10\n cmp x28, #28\n b.ne 1f\n"
        "    mov w0, #11\n fmov x9, d8\n cmp x9, #19\n b.ne 1f\n"
        "    mov w0, #12\n fmov x9, d9\n cmp x9, #20\n b.ne 1f\n"
        "    mov w0, #13\n fmov x9, d10\n cmp x9, #21\n b.ne 1f\n"
        "    mov w0, #14\n fmov x9, d11\n cmp x9, #22\n b.ne 1f\n"
        "    mov w0, #15\n fmov x9, d12\n cmp x9, #23\n b.ne 1f\n"
        "    mov w0, #16\n fmov x9, d13\n cmp x9, #24\n b.ne 1f\n"
        "    mov w0, #17\n fmov x9, d14\n cmp x9, #25\n b.ne 1f\n"
        "    mov w0, #18\n fmov x9, d15\n cmp x9, #26\n b.ne 1f\n"
        "    mov w0, #0\n"
        "1:\n"
        "    ldp x19, x20, [sp, #16]\n ldp x21, x22, [sp, #32]\n ldp x23, x24, [sp, #48]\n"
        "    ldp x25, x26, [sp, #64]\n ldp x27, x28, [sp, #80]\n"
        "    ldp d8, d9, [sp, #96]\n ldp d10, d11, [sp, #112]\n ldp d12, d13, [sp, #128]\n ldp d14, d15, [sp, #144]\n"
        "    ldp x29, x30, [sp], #176\n"
        "    ret\n"
        ".size xn_checked_call_arm, .-xn_checked_call_arm\n");
int xn_checked_call_arm(void (*function)(void), const uint64_t *arguments);

int xn_checked_call(void (*function)(void), const uint64_t arguments[XN_CHECKED_ARGUMENTS])
{
    return xn_checked_call_arm(function, arguments);
}

#else

int xn_checked_call(void (*function)(void), const uint64_t arguments[XN_CHECKED_ARGUMENTS])
{
    typedef void any(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);
    ((any *)function)(arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
    return -1;
}

#endif
