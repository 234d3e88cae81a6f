/* SPDX-License-Identifier: Apache-2.0
 * Ports of card memory in a simulation: pointers that know where their buffer ends. An access beyond it ends the run by an
 * exception. What a card reads behind the last byte of a beat that begins within the buffer is not defined; here it is 0. */
#ifndef XN_HLS_SIM_PORT_H
#define XN_HLS_SIM_PORT_H

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace xn
{
struct port_fault {
};

template <typename T> class in_port
{
    const uint8_t *base;
    size_t bytes;

  public:
    in_port(const void *buffer, size_t buffer_bytes) : base(static_cast<const uint8_t *>(buffer)), bytes(buffer_bytes)
    {
    }
    T operator[](uint64_t i) const
    {
        T v{};
        if (i > bytes / sizeof(T) || i * sizeof(T) >= bytes)
            throw port_fault();
        const size_t left = bytes - i * sizeof(T);
        std::memcpy(&v, base + i * sizeof(T), left < sizeof(T) ? left : sizeof(T));
        return v;
    }
};

template <typename T> class out_port
{
    T *base;
    size_t n;

  public:
    out_port(T *buffer, size_t elements) : base(buffer), n(elements)
    {
    }
    T &operator[](uint64_t i) const
    {
        if (i >= n)
            throw port_fault();
        return base[i];
    }
};
} // namespace xn

#endif
