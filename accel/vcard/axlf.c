/* SPDX-License-Identifier: Apache-2.0
 * Sections one behind another, at multiples of 8, as <xclbin.h> lays them out. */
#include "accel/vcard/axlf.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <nettle/sha2.h>
#include <xclbin.h>

#define SECTIONS_MAX 8u
#define KIB          1024u

/** In the place of a bitstream. */
struct engine {
    char magic[8];
    uint32_t isa_major, isa_minor;
    uint32_t units, banks, clock_mhz, reserved;
    uint64_t bank_bytes;
    struct xn_isa_geometry geometry;
};

#define ENGINE_MAGIC "xnvcard"

static const struct argument {
    const char *name, *port, *type;
    uint32_t offset, bytes;
    bool is_memory;
} arguments[] = {
    {"program", "M_AXI_FETCH", "void*", XN_ISA_REG_PROGRAM, 8, true},
    {"stream", "M_AXI_FETCH", "void*", XN_ISA_REG_STREAM, 8, true},
    {"input", "M_AXI_INPUT", "void*", XN_ISA_REG_INPUT, 8, true},
    {"output", "M_AXI_OUTPUT", "int*", XN_ISA_REG_OUTPUT, 8, true},
    {"images", "S_AXI_CONTROL", "unsigned int", XN_ISA_REG_IMAGES, 4, false},
    {"input_bytes", "S_AXI_CONTROL", "unsigned int", XN_ISA_REG_INPUT_BYTES, 4, false},
    {"output_words", "S_AXI_CONTROL", "unsigned int", XN_ISA_REG_OUTPUT_WORDS, 4, false},
    {"status", "M_AXI_OUTPUT", "int*", XN_ISA_REG_STATUS, 8, true},
};

/* ---- writing ------------------------------------------------------------------------------------------------------- */

struct section {
    enum axlf_section_kind kind;
    void *bytes; /**< NULL: no memory */
    size_t n;
};

static struct engine engine_of(const struct xn_vcard_options *o)
{
    return (struct engine){.magic = ENGINE_MAGIC,
                           .isa_major = XN_ISA_MAJOR,
                           .isa_minor = XN_ISA_MINOR,
                           .units = o->units,
                           .banks = o->banks,
                           .clock_mhz = o->clock_mhz,
                           .bank_bytes = o->memory_bytes / o->banks / KIB * KIB,
                           .geometry = o->geometry};
}

static uint64_t unit_base(uint32_t unit)
{
    return XN_VCARD_UNITS + (uint64_t)unit * XN_VCARD_UNIT_BYTES;
}

static struct section engine_section(const struct xn_vcard_options *o)
{
    struct engine *e = malloc(sizeof(*e));

    if (e)
        *e = engine_of(o);
    return (struct section){BITSTREAM, e, sizeof(*e)};
}

static struct section memory_section(const struct xn_vcard_options *o, enum axlf_section_kind kind)
{
    const struct engine e = engine_of(o);
    const size_t n = offsetof(struct mem_topology, m_mem_data) + o->banks * sizeof(struct mem_data);
    struct mem_topology *t = calloc(1, n);

    if (!t)
        return (struct section){0};
    t->m_count = (int32_t)o->banks;
    for (uint32_t i = 0; i < o->banks; i++) {
        struct mem_data *bank = &t->m_mem_data[i];
        bank->m_type = MEM_DDR4;
        bank->m_used = 1;
        bank->m_size = e.bank_bytes / KIB;
        bank->m_base_address = XN_VCARD_MEMORY_BASE + i * e.bank_bytes;
        snprintf((char *)bank->m_tag, sizeof(bank->m_tag), "DDR[%u]", i);
    }
    return (struct section){kind, t, n};
}

static struct section units_section(const struct xn_vcard_options *o)
{
    const size_t n = offsetof(struct ip_layout, m_ip_data) + o->units * sizeof(struct ip_data);
    struct ip_layout *l = calloc(1, n);

    if (!l)
        return (struct section){0};
    l->m_count = (int32_t)o->units;
    for (uint32_t i = 0; i < o->units; i++) {
        struct ip_data *unit = &l->m_ip_data[i];
        unit->m_type = IP_KERNEL;
        unit->properties = IP_INT_ENABLE_MASK | i << IP_INTERRUPT_ID_SHIFT | AP_CTRL_HS << IP_CONTROL_SHIFT;
        unit->m_base_address = unit_base(i);
        snprintf((char *)unit->m_name, sizeof(unit->m_name), "xnor_engine:xnor_engine_%u", i + 1);
    }
    return (struct section){IP_LAYOUT, l, n};
}

static struct section connectivity_section(const struct xn_vcard_options *o, enum axlf_section_kind kind)
{
    const size_t n = offsetof(struct connectivity, m_connection) +
                     (size_t)o->units * XN_ARRAY_LEN(arguments) * sizeof(struct connection);
    struct connectivity *c = calloc(1, n);

    if (!c)
        return (struct section){0};
    for (uint32_t unit = 0; unit < o->units; unit++)
        for (size_t i = 0; i < XN_ARRAY_LEN(arguments); i++)
            if (arguments[i].is_memory)
                c->m_connection[c->m_count++] =
                    (struct connection){(int32_t)i, (int32_t)unit, (int32_t)(unit % o->banks)};
    return (struct section){
        kind, c, offsetof(struct connectivity, m_connection) + (size_t)c->m_count * sizeof(struct connection)};
}

static void write_kernel(FILE *f, const struct xn_vcard_options *o)
{
    fprintf(f,
            "    <kernel name=\"xnor_engine\" language=\"c\" vlnv=\"xnord:hls:xnor_engine:%u.%u\" attributes=\"\" "
            "preferredWorkGroupSizeMultiple=\"0\" workGroupSize=\"1\" interrupt=\"true\" "
            "hwControlProtocol=\"ap_ctrl_hs\">\n"
            "     <port name=\"S_AXI_CONTROL\" mode=\"slave\" range=\"0x%x\" dataWidth=\"32\" portType=\"addressable\" "
            "base=\"0x0\"/>\n",
            XN_ISA_MAJOR, XN_ISA_MINOR, XN_VCARD_UNIT_BYTES);
    for (const char *const *port = (const char *const[]){"M_AXI_FETCH", "M_AXI_INPUT", "M_AXI_OUTPUT", NULL}; *port;
         port++)
        fprintf(f,
                "     <port name=\"%s\" mode=\"master\" range=\"0xFFFFFFFFFFFFFFFF\" dataWidth=\"256\" "
                "portType=\"addressable\" base=\"0x0\"/>\n",
                *port);
    for (size_t i = 0; i < XN_ARRAY_LEN(arguments); i++)
        fprintf(f,
                "     <arg name=\"%s\" addressQualifier=\"%d\" id=\"%zu\" port=\"%s\" size=\"0x%x\" offset=\"0x%x\" "
                "hostOffset=\"0x0\" hostSize=\"0x%x\" type=\"%s\"/>\n",
                arguments[i].name, arguments[i].is_memory, i, arguments[i].port, arguments[i].bytes,
                arguments[i].offset, arguments[i].bytes, arguments[i].type);
    fprintf(f,
            "     <compileWorkGroupSize x=\"1\" y=\"1\" z=\"1\"/>\n     <maxWorkGroupSize x=\"1\" y=\"1\" z=\"1\"/>\n");
    for (uint32_t i = 0; i < o->units; i++)
        fprintf(f,
                "     <instance name=\"xnor_engine_%u\"><addrRemap base=\"0x%llx\" range=\"0x%x\" "
                "port=\"S_AXI_CONTROL\"/></instance>\n",
                i + 1, (unsigned long long)unit_base(i), XN_VCARD_UNIT_BYTES);
    fprintf(f, "    </kernel>\n");
}

static struct section metadata_section(const struct xn_vcard_options *o)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);

    if (!f)
        return (struct section){0};
    fprintf(
        f,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<project name=\"xnor_engine\">\n"
        " <platform vendor=\"xnord\" boardid=\"vcard\" name=\"xnor_vcard\" featureRomTime=\"0\">\n  <version "
        "major=\"1\" minor=\"0\"/>\n"
        "  <device name=\"fpga0\" fpgaDevice=\"none\" addrWidth=\"0\">\n"
        "   <core name=\"OCL_REGION_0\" target=\"hw\" type=\"clc_region\" clockFreq=\"%uMHz\" numComputeUnits=\"%u\">\n"
        "    <kernelClocks><clock port=\"KERNEL_CLK\" frequency=\"%uMHz\"/></kernelClocks>\n",
        o->clock_mhz, o->units, o->clock_mhz);
    write_kernel(f, o);
    fprintf(f, "   </core>\n  </device>\n </platform>\n</project>\n");
    if (fclose(f) == 0)
        return (struct section){EMBEDDED_METADATA, text, n};
    free(text);
    return (struct section){0};
}

static struct section build_section(void)
{
    static const char json[] =
        "{\"build_metadata\":{\"dsa\":{\"vendor\":\"xnord\",\"board_id\":\"vcard\",\"name\":\"xnor_vcard\","
        "\"version_major\":\"1\",\"version_minor\":\"0\",\"description\":\"virtual card\","
        "\"generated_by\":{\"name\":\"xnor-vcard\",\"version\":\"1\",\"cl\":\"0\",\"time_stamp\":\"0\"},"
        "\"feature_roms\":[],\"board\":{\"name\":\"vcard\",\"vendor\":\"xnord\",\"part\":\"none\"}},"
        "\"xclbin\":{\"generated_by\":{\"name\":\"xnor-vcard\",\"version\":\"1\",\"cl\":\"0\",\"time_stamp\":\"0\"},"
        "\"packaged_by\":{\"name\":\"xnor-vcard\",\"version\":\"1\",\"hash\":\"\",\"time_stamp\":\"0\"},"
        "\"generated_options\":{},\"kernels\":[],\"links\":{}}}}";

    return (struct section){BUILD_METADATA, strdup(json), sizeof(json) - 1};
}

/** SHA-256 of the whole, the UUID as 0, cut to a UUID's length. */
static void hash(const void *bytes, size_t n, uint8_t ret_uuid[XN_AXLF_UUID_BYTES])
{
    static const uint8_t zero[XN_AXLF_UUID_BYTES];
    const size_t at = offsetof(struct axlf, m_header.uuid), behind = at + XN_AXLF_UUID_BYTES;
    struct sha256_ctx sha;

    sha256_init(&sha);
    sha256_update(&sha, at, bytes);
    sha256_update(&sha, sizeof(zero), zero);
    sha256_update(&sha, n - behind, (const uint8_t *)bytes + behind);
    sha256_digest(&sha, XN_AXLF_UUID_BYTES, ret_uuid);
}

/** One after another into the container. */
static int assemble(const struct section *sections, size_t n_sections, void **ret_bytes, size_t *ret_n)
{
    const size_t headers = offsetof(struct axlf, m_sections) + n_sections * sizeof(struct axlf_section_header);
    size_t n = xn_align_up(headers, 8);

    for (size_t i = 0; i < n_sections; i++)
        n += xn_align_up(sections[i].n, 8);
    uint8_t *bytes = calloc(1, n);
    if (!bytes)
        return -ENOMEM;
    struct axlf *top = (struct axlf *)(void *)bytes;
    memcpy(top->m_magic, "xclbin2", sizeof(top->m_magic));
    top->m_signature_length = -1;
    memset(top->reserved, 0xff, sizeof(top->reserved));
    memset(top->m_keyBlock, 0xff, sizeof(top->m_keyBlock));
    top->m_header.m_length = n;
    top->m_header.m_versionMajor = 2;
    top->m_header.m_versionMinor = 13;
    top->m_header.m_mode = XCLBIN_FLAT;
    snprintf((char *)top->m_header.m_platformVBNV, sizeof(top->m_header.m_platformVBNV), "%s", XN_VCARD_PLATFORM);
    top->m_header.m_numSections = (uint32_t)n_sections;
    size_t at = xn_align_up(headers, 8);
    for (size_t i = 0; i < n_sections; i++) {
        const struct axlf_section_header header = {
            .m_sectionKind = sections[i].kind, .m_sectionOffset = at, .m_sectionSize = sections[i].n};
        memcpy(bytes + offsetof(struct axlf, m_sections) + i * sizeof(header), &header, sizeof(header));
        memcpy(bytes + at, sections[i].bytes, sections[i].n);
        at += xn_align_up(sections[i].n, 8);
    }
    uint8_t uuid[XN_AXLF_UUID_BYTES];
    hash(bytes, n, uuid);
    memcpy(bytes + offsetof(struct axlf, m_header.uuid), uuid, sizeof(uuid));
    *ret_bytes = bytes;
    *ret_n = n;
    return 0;
}

int xn_axlf_make(const struct xn_vcard_options *o, void **ret_bytes, size_t *ret_n)
{
    const struct section sections[] = {
        engine_section(o),
        memory_section(o, MEM_TOPOLOGY),
        units_section(o),
        connectivity_section(o, CONNECTIVITY),
        metadata_section(o),
        build_section(),
        memory_section(o, ASK_GROUP_TOPOLOGY),
        connectivity_section(o, ASK_GROUP_CONNECTIVITY),
    };
    int r = 0;

    for (size_t i = 0; i < XN_ARRAY_LEN(sections); i++)
        if (!sections[i].bytes)
            r = -ENOMEM;
    if (r == 0)
        r = assemble(sections, XN_ARRAY_LEN(sections), ret_bytes, ret_n);
    for (size_t i = 0; i < XN_ARRAY_LEN(sections); i++)
        free(sections[i].bytes);
    return r;
}

/* ---- checking ------------------------------------------------------------------------------------------------------ */

/** The section of this kind, at least `least` bytes of it, or NULL. */
static const uint8_t *find(const uint8_t *bytes, size_t n, uint32_t n_sections, uint32_t kind, size_t least,
                           size_t *ret_n)
{
    for (uint32_t i = 0; i < n_sections; i++) {
        struct axlf_section_header header;
        memcpy(&header, bytes + offsetof(struct axlf, m_sections) + i * sizeof(header), sizeof(header));
        if (header.m_sectionKind != kind)
            continue;
        if (header.m_sectionOffset > n || header.m_sectionSize > n - header.m_sectionOffset ||
            header.m_sectionSize < least)
            return NULL;
        *ret_n = header.m_sectionSize;
        return bytes + header.m_sectionOffset;
    }
    return NULL;
}

static int check_engine(const struct xn_vcard_options *o, const struct engine *got, struct xn_error *error)
{
    const struct engine want = engine_of(o);

    if (memcmp(got->magic, want.magic, sizeof(want.magic)) != 0)
        return xn_error_set(error, -EINVAL, "xclbin: a bitstream that is none of a virtual card");
    if (got->isa_major != want.isa_major)
        return xn_error_set(error, -EINVAL, "xclbin: instruction set %u, the card has %u", got->isa_major,
                            want.isa_major);
    if (memcmp(&got->geometry, &want.geometry, sizeof(want.geometry)) != 0)
        return xn_error_set(error, -EINVAL, "xclbin: an engine of another geometry than the card's");
    if (got->units > want.units || got->banks != want.banks || got->bank_bytes != want.bank_bytes)
        return xn_error_set(error, -EINVAL, "xclbin: more units or other memory than the card has");
    return 0;
}

int xn_axlf_check(const struct xn_vcard_options *o, const void *bytes, size_t n, uint32_t *ret_units,
                  struct xn_error *error)
{
    struct axlf top;
    struct engine engine;
    uint8_t uuid[XN_AXLF_UUID_BYTES];
    size_t section_bytes;

    if (n < sizeof(top))
        return xn_error_set(error, -EINVAL, "xclbin: %zu bytes are too few", n);
    memcpy(&top, bytes, sizeof(top));
    if (memcmp(top.m_magic, "xclbin2", sizeof(top.m_magic)) != 0 || top.m_header.m_length != n ||
        top.m_header.m_numSections > SECTIONS_MAX ||
        offsetof(struct axlf, m_sections) + top.m_header.m_numSections * sizeof(struct axlf_section_header) > n)
        return xn_error_set(error, -EINVAL, "xclbin: not a whole xclbin");
    if (strncmp((const char *)top.m_header.m_platformVBNV, XN_VCARD_PLATFORM, sizeof(top.m_header.m_platformVBNV)) != 0)
        return xn_error_set(error, -EINVAL, "xclbin: for another platform than %s", XN_VCARD_PLATFORM);
    hash(bytes, n, uuid);
    if (memcmp(uuid, top.m_header.uuid, sizeof(uuid)) != 0)
        return xn_error_set(error, -EINVAL, "xclbin: damaged, its contents are not those of its UUID");
    const uint8_t *bits = find(bytes, n, top.m_header.m_numSections, BITSTREAM, sizeof(engine), &section_bytes);
    if (!bits)
        return xn_error_set(error, -EINVAL, "xclbin: no bitstream");
    memcpy(&engine, bits, sizeof(engine));
    const uint8_t *layout =
        find(bytes, n, top.m_header.m_numSections, IP_LAYOUT,
             offsetof(struct ip_layout, m_ip_data) + (size_t)engine.units * sizeof(struct ip_data), &section_bytes);
    if (engine.units < 1 || engine.units > XN_VCARD_UNITS_MAX || !layout)
        return xn_error_set(error, -EINVAL, "xclbin: no compute units");
    *ret_units = engine.units;
    return check_engine(o, &engine, error);
}

void xn_axlf_uuid(const void *bytes, uint8_t ret_uuid[XN_AXLF_UUID_BYTES])
{
    memcpy(ret_uuid, (const uint8_t *)bytes + offsetof(struct axlf, m_header.uuid), XN_AXLF_UUID_BYTES);
}
