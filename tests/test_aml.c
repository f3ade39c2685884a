/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_aml.h"

#include "test.h"

/* Keeps gcc from warning, wrongly, of a read past a string whose end is found before. */
static const char *opaque(const char *s)
{
    const char *volatile hidden = s;

    return hidden;
}

#define ROOM 4096

static uint8_t room[ROOM];

/* A description, in words: what a row of a table calls. */
typedef void emit(struct tn_aml *a);

/* Encodes into room, which must then hold the bytes of hex, blanks apart. */
static void same(const char *name, emit *f, const char *hex)
{
    char got[2 * ROOM + 1], want[2 * ROOM + 1];
    struct tn_aml a;
    int64_t len;
    size_t n = 0;

    tn_aml_init(&a, room, sizeof(room));
    f(&a);
    len = tn_aml_finish(&a);
    if (len < 0)
        fail_msg("%s: error %d", name, (int)len);
    for (int64_t i = 0; i < len; i++)
        snprintf(got + 2 * i, 3, "%02x", room[i]);
    got[2 * len] = 0;
    for (; *hex; hex++) {
        if (*hex != ' ')
            want[n++] = *hex;
    }
    want[n] = 0;
    if (strcmp(got, want) != 0)
        fail_msg("%s: got %s, want %s", name, got, want);

    /* It fits exactly; every smaller buffer is too small, and nothing beyond it is touched. */
    for (size_t cap = 0; cap <= (size_t)len; cap++) {
        uint8_t *exact = test_exact(room, cap);

        tn_aml_init(&a, exact, cap);
        f(&a);
        if (tn_aml_finish(&a) != (cap == (size_t)len ? len : TN_ENOSPC))
            fail_msg("%s: %zu bytes of room: %d", name, cap, (int)tn_aml_finish(&a));
        if (cap == (size_t)len)
            assert_memory_equal(exact, room, cap);
        free(exact);
    }
}

static emit odd_open, odd_no_value;

static void fails(const char *name, emit *f, int err)
{
    struct tn_aml a;

    tn_aml_init(&a, room, sizeof(room));
    f(&a);
    if (tn_aml_finish(&a) != err)
        fail_msg("%s: %d, not %d", name, (int)tn_aml_finish(&a), err);
    if (f == odd_open || f == odd_no_value)
        return; /* something is missing: found at the end only */
    assert_int_equal(a.err, err);
    /* Whatever comes after it changes nothing. */
    tn_aml_device_begin(&a, "AAAA");
    tn_aml_name(&a, "BBBB");
    tn_aml_integer(&a, 1);
    tn_aml_end(&a);
    tn_aml_fail(&a, TN_EBUG);
    assert_int_equal(tn_aml_finish(&a), err);
}

/* Each row's expression sees the encoder as `a`; GNU C has no need of a name for each. */
#define EMIT(name, ...)                \
    static void name(struct tn_aml *a) \
    {                                  \
        __VA_ARGS__;                   \
    }

EMIT(name_zero, tn_aml_name(a, "AB"); tn_aml_integer(a, 0))
EMIT(name_one, tn_aml_name(a, "_A0Z"); tn_aml_integer(a, 1))
EMIT(name_2, tn_aml_name(a, "A"); tn_aml_integer(a, 2))
EMIT(name_255, tn_aml_name(a, "A"); tn_aml_integer(a, 255))
EMIT(name_256, tn_aml_name(a, "A"); tn_aml_integer(a, 256))
EMIT(name_65535, tn_aml_name(a, "A"); tn_aml_integer(a, 65535))
EMIT(name_65536, tn_aml_name(a, "A"); tn_aml_integer(a, 65536))
EMIT(name_u32, tn_aml_name(a, "A"); tn_aml_integer(a, 0xffffffff))
EMIT(name_u33, tn_aml_name(a, "A"); tn_aml_integer(a, 0x100000000))
EMIT(name_ones, tn_aml_name(a, "A"); tn_aml_integer(a, UINT64_MAX))
EMIT(name_text, tn_aml_name(a, "A"); tn_aml_string(a, "a\x01\x7f"))
EMIT(name_empty, tn_aml_name(a, "A"); tn_aml_string(a, ""))
EMIT(name_buffer, tn_aml_name(a, "A"); tn_aml_buffer(a, "\xff\x80\x01", 3))
EMIT(name_no_bytes, tn_aml_name(a, "A"); tn_aml_buffer(a, NULL, 0))
EMIT(name_one_byte, tn_aml_name(a, "A"); tn_aml_buffer(a, "x", 1))
EMIT(name_eisa, tn_aml_name(a, "A"); tn_aml_eisaid(a, "PNP0A08"))
EMIT(hid_eisa, tn_aml_hid(a, "PNP0501"))
EMIT(hid_acpi, tn_aml_hid(a, "LNRO0005"))
EMIT(hid_digits, tn_aml_hid(a, "1AF4FFFF"))
EMIT(uid, tn_aml_uid(a, 77))
EMIT(path_root, tn_aml_name(a, "\\A"); tn_aml_integer(a, 0))
EMIT(path_parent, tn_aml_name(a, "^^A"); tn_aml_integer(a, 0))
EMIT(path_dual, tn_aml_name(a, "A.BC"); tn_aml_integer(a, 0))
EMIT(path_multi, tn_aml_name(a, "\\A.B.CDEF"); tn_aml_integer(a, 0))
EMIT(scope_root, tn_aml_scope_begin(a, "\\"); tn_aml_end(a))
EMIT(scope_up, tn_aml_scope_begin(a, "^"); tn_aml_end(a))
EMIT(device, tn_aml_device_begin(a, "DEV1"); tn_aml_uid(a, 1); tn_aml_end(a))
EMIT(method, tn_aml_method_begin(a, "M", 7, true); tn_aml_end(a))
EMIT(package, tn_aml_name(a, "_S5"); tn_aml_package_begin(a); tn_aml_integer(a, 5);
     tn_aml_string(a, "x"); tn_aml_package_begin(a); tn_aml_end(a); tn_aml_path(a, "A.B");
     tn_aml_end(a))
EMIT(region, tn_aml_region(a, "R", TN_AML_SPACE_IO, 0x600, 2);
     tn_aml_field_begin(a, "R", TN_AML_ACCESS_BYTE | TN_AML_FIELD_LOCK | TN_AML_UPDATE_ONES);
     tn_aml_field_unit(a, "F", 8); tn_aml_field_skip(a, 63); tn_aml_field_skip(a, 64);
     tn_aml_field_unit(a, "G", 0xfffffff); tn_aml_end(a))
EMIT(resources, tn_aml_name(a, "_CRS"); tn_aml_resources_begin(a); tn_aml_end(a))
EMIT(crs_io, tn_aml_name(a, "_CRS"); tn_aml_resources_begin(a); tn_aml_io(a, 0x3f8, 8);
     tn_aml_irq(a, 4); tn_aml_end(a))
EMIT(crs_memory32, tn_aml_name(a, "_CRS"); tn_aml_resources_begin(a);
     tn_aml_memory32(a, 0xfffff000, 0x1000, true); tn_aml_memory32(a, 0, 1, false); tn_aml_end(a))
EMIT(crs_memory64, tn_aml_name(a, "_CRS"); tn_aml_resources_begin(a);
     tn_aml_memory64(a, 0xfffffffffffff000, 0x1000, true); tn_aml_end(a))
EMIT(crs_interrupt, tn_aml_name(a, "_CRS"); tn_aml_resources_begin(a);
     tn_aml_interrupt(a, 0x1234, TN_AML_EDGE);
     tn_aml_interrupt(a, 5, TN_AML_LEVEL | TN_AML_LOW | TN_AML_SHARED | TN_AML_WAKE); tn_aml_end(a))
EMIT(evt, tn_aml_method_begin(a, "_EVT", 1, true); tn_aml_if_begin(a);
     tn_aml_operator(a, TN_AML_EQUAL); tn_aml_arg(a, 0); tn_aml_integer(a, 9); tn_aml_notify(a);
     tn_aml_path(a, "\\_SB.PWRB"); tn_aml_integer(a, 0x80); tn_aml_end(a); tn_aml_else_begin(a);
     tn_aml_return(a); tn_aml_integer(a, 0); tn_aml_end(a); tn_aml_end(a))
EMIT(arithmetic, tn_aml_method_begin(a, "M", 2, false); tn_aml_store(a);
     tn_aml_operator(a, TN_AML_ADD); tn_aml_arg(a, 1); tn_aml_integer(a, 3); tn_aml_discard(a);
     tn_aml_local(a, 7); tn_aml_operator(a, TN_AML_SHIFT_LEFT); tn_aml_local(a, 0);
     tn_aml_integer(a, 1); tn_aml_local(a, 1); tn_aml_call(a, "FN", 2); tn_aml_integer(a, 1);
     tn_aml_operator(a, TN_AML_LNOT); tn_aml_local(a, 2); tn_aml_call(a, "FN", 0); tn_aml_end(a))
EMIT(nothing, (void)a)

static void terms_are_the_specifications_bytes(void **state)
{
    (void)state;
    same("nothing", nothing, "");
    same("zero", name_zero, "08 41425f5f 00");
    same("one", name_one, "08 5f41305a 01");
    same("2", name_2, "08 415f5f5f 0a02");
    same("255", name_255, "08 415f5f5f 0aff");
    same("256", name_256, "08 415f5f5f 0b0001");
    same("65535", name_65535, "08 415f5f5f 0bffff");
    same("65536", name_65536, "08 415f5f5f 0c00000100");
    same("2^32-1", name_u32, "08 415f5f5f 0cffffffff");
    same("2^32", name_u33, "08 415f5f5f 0e0000000001000000");
    same("2^64-1", name_ones, "08 415f5f5f 0effffffffffffffff");
    same("string", name_text, "08 415f5f5f 0d 61017f 00");
    same("empty string", name_empty, "08 415f5f5f 0d 00");
    same("buffer", name_buffer, "08 415f5f5f 11 06 0a03 ff8001");
    same("empty buffer", name_no_bytes, "08 415f5f5f 11 02 00");
    same("buffer of one", name_one_byte, "08 415f5f5f 11 03 01 78");
    same("EISA id", name_eisa, "08 415f5f5f 0c 41d00a08");
    same("_HID, EISA", hid_eisa, "08 5f484944 0c 41d00501");
    same("_HID, ACPI", hid_acpi, "08 5f484944 0d 4c4e524f30303035 00");
    same("_HID, digits", hid_digits, "08 5f484944 0d 3141463446464646 00");
    same("_UID", uid, "08 5f554944 0a4d");
    same("root path", path_root, "08 5c 415f5f5f 00");
    same("parents' path", path_parent, "08 5e5e 415f5f5f 00");
    same("dual path", path_dual, "08 2e 415f5f5f 42435f5f 00");
    same("multi path", path_multi, "08 5c 2f03 415f5f5f 425f5f5f 43444546 00");
    same("scope of the root", scope_root, "10 03 5c00");
    same("scope of the parent", scope_up, "10 03 5e00");
    same("device", device, "5b82 0b 44455631 08 5f554944 01");
    same("method", method, "14 06 4d5f5f5f 0f");
    same("package", package, "08 5f53355f 12 13 04 0a05 0d7800 12 02 00 2e 415f5f5f 425f5f5f");
    same("region and field", region,
         "5b80 525f5f5f 01 0b0006 0a02 5b81 18 525f5f5f 31 465f5f5f 08 00 3f 00 4004"
         "475f5f5f cfffffff");
    same("empty template", resources, "08 5f435253 11 05 0a02 7987");
    same("ports and line", crs_io, "08 5f435253 11 10 0a0d 4701f803f8030108 221000 790e");
    same("32-bit memory", crs_memory32,
         "08 5f435253 11 1d 0a1a 86090001 00f0ffff 00100000"
         "86090000 00000000 01000000 7969");
    same("64-bit memory", crs_memory64,
         "08 5f435253 11 33 0a30 8a2b00 000d01 0000000000000000 00f0ffffffffffff"
         "ffffffffffffffff 0000000000000000 0010000000000000 79d2");
    same("interrupts", crs_interrupt,
         "08 5f435253 11 17 0a14 890600 0301 34120000 890600 1d01 05000000 79fc");
    same("_EVT", evt,
         "14 1d 5f455654 09 a0 12 93 68 0a09 86 5c2e5f53425f50575242 0a80"
         "a1 03 a400");
    same("arithmetic", arithmetic,
         "14 1c 4d5f5f5f 02 70 72 69 0a03 00 67 79 60 01 61 464e5f5f 01 92 62 464e5f5f");
}

static void descriptors_sum_up_to_zero(void **state)
{
    static emit *const list[] = {resources, crs_io, crs_memory32, crs_memory64, crs_interrupt};

    (void)state;
    for (size_t i = 0; i < COUNT(list); i++) {
        struct tn_aml a;
        unsigned sum = 0;
        int64_t len;

        tn_aml_init(&a, room, sizeof(room));
        list[i](&a);
        len = tn_aml_finish(&a);
        for (int64_t k = 9; k < len; k++) /* behind the name, BufferOp, a PkgLength and a size */
            sum += room[k];
        assert_int_equal(sum % 256, 0);
        assert_int_equal(room[8], len - 9);
    }
}

#define BAD_PATH(name, path) EMIT(name, tn_aml_name(a, path); tn_aml_integer(a, 0))
BAD_PATH(bad_empty, "")
BAD_PATH(bad_long, "ABCDE")
BAD_PATH(bad_lower, "abcd")
BAD_PATH(bad_digit, "1ABC")
BAD_PATH(bad_dot, "A.")
BAD_PATH(bad_dots, "A..B")
BAD_PATH(bad_first_dot, ".A")
BAD_PATH(bad_root_late, "A\\")
BAD_PATH(bad_root_twice, "\\\\A")
BAD_PATH(bad_root_parent, "\\^A")
BAD_PATH(bad_bare_root, "\\")
BAD_PATH(bad_bare_parent, "^")
BAD_PATH(bad_blank, "A B")
BAD_PATH(bad_slash, "A/B")
BAD_PATH(bad_high, "A\xc3")
BAD_PATH(bad_long_second, "A.BCDEF")
EMIT(bad_device, tn_aml_device_begin(a, "\\"); tn_aml_end(a))
EMIT(bad_scope, tn_aml_scope_begin(a, ""); tn_aml_end(a))
EMIT(bad_string, tn_aml_name(a, "A"); tn_aml_string(a, "na\xefve"))
EMIT(bad_eisa_short, tn_aml_name(a, "A"); tn_aml_eisaid(a, opaque("PNP050")))
EMIT(bad_eisa_long, tn_aml_name(a, "A"); tn_aml_eisaid(a, "PNP05011"))
EMIT(bad_eisa_lower, tn_aml_name(a, "A"); tn_aml_eisaid(a, "pnp0501"))
EMIT(bad_eisa_hex, tn_aml_name(a, "A"); tn_aml_eisaid(a, "PNP0G01"))
EMIT(bad_eisa_at, tn_aml_name(a, "A"); tn_aml_eisaid(a, "P@P0501"))
EMIT(bad_eisa_none, tn_aml_name(a, "A"); tn_aml_eisaid(a, ""))
EMIT(bad_hid, tn_aml_hid(a, "LNRO000"))
EMIT(bad_hid_long, tn_aml_hid(a, "LNRO00051"))
EMIT(bad_hid_lower, tn_aml_hid(a, "LNRO000a"))
EMIT(bad_hid_none, tn_aml_hid(a, ""))
EMIT(bad_args, tn_aml_method_begin(a, "M", 8, false); tn_aml_end(a))
EMIT(bad_call, tn_aml_method_begin(a, "M", 0, false); tn_aml_call(a, "F", 8); tn_aml_end(a))
EMIT(bad_local, tn_aml_method_begin(a, "M", 0, false); tn_aml_return(a); tn_aml_local(a, 8);
     tn_aml_end(a))
EMIT(bad_arg, tn_aml_method_begin(a, "M", 0, false); tn_aml_return(a); tn_aml_arg(a, 7);
     tn_aml_end(a))
EMIT(bad_operator, tn_aml_method_begin(a, "M", 0, false); tn_aml_operator(a, (enum tn_aml_op)0x73))
#define BAD_RESOURCE(name, ...) \
    EMIT(name, tn_aml_name(a, "A"); tn_aml_resources_begin(a); __VA_ARGS__; tn_aml_end(a))
BAD_RESOURCE(bad_io_none, tn_aml_io(a, 0, 0))
BAD_RESOURCE(bad_io_wrap, tn_aml_io(a, 0xfff9, 8))
BAD_RESOURCE(bad_memory32_none, tn_aml_memory32(a, 0, 0, true))
BAD_RESOURCE(bad_memory32_wrap, tn_aml_memory32(a, 0xfffff001, 0x1000, true))
BAD_RESOURCE(bad_memory64_none, tn_aml_memory64(a, 0, 0, true))
BAD_RESOURCE(bad_memory64_wrap, tn_aml_memory64(a, UINT64_MAX, 2, true))
BAD_RESOURCE(bad_line, tn_aml_irq(a, 16))
BAD_RESOURCE(bad_flags, tn_aml_interrupt(a, 4, 1))
BAD_RESOURCE(bad_flags_high, tn_aml_interrupt(a, 4, 0x100))
EMIT(bad_region_none, tn_aml_region(a, "R", 0, 0, 0))
EMIT(bad_region_wrap, tn_aml_region(a, "R", 0, UINT64_MAX, 2))
EMIT(bad_field_flags, tn_aml_field_begin(a, "R", 0x60); tn_aml_end(a))
EMIT(bad_field_access, tn_aml_field_begin(a, "R", 5); tn_aml_end(a))
#define BAD_UNIT(name, ...) EMIT(name, tn_aml_field_begin(a, "R", 0); __VA_ARGS__; tn_aml_end(a))
BAD_UNIT(bad_unit_bits, tn_aml_field_unit(a, "F", 0))
BAD_UNIT(bad_unit_many, tn_aml_field_unit(a, "F", 0x10000000))
BAD_UNIT(bad_unit_path, tn_aml_field_unit(a, "F.G", 1))
BAD_UNIT(bad_unit_none, tn_aml_field_unit(a, "", 1))
BAD_UNIT(bad_skip, tn_aml_field_skip(a, 0))

static void bad_names_and_numbers_are_refused(void **state)
{
    static const struct {
        const char *name;
        emit *f;
    } row[] = {
#define ROW(f) {#f, f}
        ROW(bad_empty),         ROW(bad_long),          ROW(bad_lower),
        ROW(bad_digit),         ROW(bad_dot),           ROW(bad_dots),
        ROW(bad_first_dot),     ROW(bad_root_late),     ROW(bad_root_twice),
        ROW(bad_root_parent),   ROW(bad_bare_root),     ROW(bad_bare_parent),
        ROW(bad_blank),         ROW(bad_slash),         ROW(bad_high),
        ROW(bad_long_second),   ROW(bad_device),        ROW(bad_scope),
        ROW(bad_string),        ROW(bad_eisa_short),    ROW(bad_eisa_long),
        ROW(bad_eisa_lower),    ROW(bad_eisa_hex),      ROW(bad_eisa_at),
        ROW(bad_eisa_none),     ROW(bad_hid),           ROW(bad_hid_long),
        ROW(bad_hid_lower),     ROW(bad_hid_none),      ROW(bad_args),
        ROW(bad_call),          ROW(bad_local),         ROW(bad_arg),
        ROW(bad_operator),      ROW(bad_io_none),       ROW(bad_io_wrap),
        ROW(bad_memory32_none), ROW(bad_memory32_wrap), ROW(bad_memory64_none),
        ROW(bad_memory64_wrap), ROW(bad_line),          ROW(bad_flags),
        ROW(bad_flags_high),    ROW(bad_region_none),   ROW(bad_region_wrap),
        ROW(bad_field_flags),   ROW(bad_field_access),  ROW(bad_unit_bits),
        ROW(bad_unit_many),     ROW(bad_unit_path),     ROW(bad_unit_none),
        ROW(bad_skip),
    };

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++)
        fails(row[i].name, row[i].f, TN_EINVAL);
}

#define IN_METHOD(name, ...) EMIT(name, tn_aml_method_begin(a, "M", 0, false); __VA_ARGS__)
EMIT(odd_end, tn_aml_end(a))
EMIT(odd_open, tn_aml_device_begin(a, "D"))
EMIT(odd_two_ends, tn_aml_device_begin(a, "D"); tn_aml_end(a); tn_aml_end(a))
EMIT(odd_no_value, tn_aml_name(a, "A"))
EMIT(odd_no_value_end, tn_aml_device_begin(a, "D"); tn_aml_name(a, "A"); tn_aml_end(a))
EMIT(odd_value, tn_aml_integer(a, 1))
EMIT(odd_two_values, tn_aml_name(a, "A"); tn_aml_integer(a, 1); tn_aml_string(a, "x"))
EMIT(odd_name_name, tn_aml_name(a, "A"); tn_aml_name(a, "B"))
EMIT(odd_name_device, tn_aml_name(a, "A"); tn_aml_device_begin(a, "B"))
EMIT(odd_name_path, tn_aml_name(a, "A"); tn_aml_path(a, "B"))
EMIT(odd_return, tn_aml_return(a))
EMIT(odd_store, tn_aml_device_begin(a, "D"); tn_aml_store(a))
EMIT(odd_if, tn_aml_if_begin(a))
EMIT(odd_notify, tn_aml_notify(a))
EMIT(odd_else_first, tn_aml_else_begin(a))
EMIT(odd_call, tn_aml_call(a, "F", 0))
EMIT(odd_operator, tn_aml_operator(a, TN_AML_ADD))
EMIT(odd_local, tn_aml_local(a, 0))
EMIT(odd_arg, tn_aml_arg(a, 0))
EMIT(odd_discard, tn_aml_discard(a))
EMIT(odd_io, tn_aml_io(a, 1, 1))
EMIT(odd_memory32, tn_aml_memory32(a, 1, 1, true))
EMIT(odd_memory64, tn_aml_memory64(a, 1, 1, true))
EMIT(odd_irq, tn_aml_irq(a, 1))
EMIT(odd_interrupt, tn_aml_interrupt(a, 1, 0))
EMIT(odd_unit, tn_aml_field_unit(a, "A", 1))
EMIT(odd_skip, tn_aml_field_skip(a, 1))
EMIT(odd_package, tn_aml_package_begin(a))
EMIT(odd_resources, tn_aml_resources_begin(a))
EMIT(odd_buffer, tn_aml_buffer(a, "", 1))
EMIT(odd_eisa, tn_aml_eisaid(a, "PNP0501"))
EMIT(odd_name_in_package, tn_aml_name(a, "A"); tn_aml_package_begin(a); tn_aml_name(a, "B"))
EMIT(odd_op_in_package, tn_aml_name(a, "A"); tn_aml_package_begin(a); tn_aml_return(a))
EMIT(odd_number_in_template, tn_aml_name(a, "A"); tn_aml_resources_begin(a); tn_aml_integer(a, 1))
EMIT(odd_number_in_field, tn_aml_field_begin(a, "A", 0); tn_aml_integer(a, 1))
EMIT(odd_region_in_field, tn_aml_field_begin(a, "A", 0); tn_aml_region(a, "R", 0, 0, 1))
EMIT(odd_field_in_name, tn_aml_name(a, "A"); tn_aml_field_begin(a, "A", 0))
EMIT(odd_method_in_name, tn_aml_name(a, "A"); tn_aml_method_begin(a, "A", 0, false))
EMIT(odd_scope_in_name, tn_aml_name(a, "A"); tn_aml_scope_begin(a, "A"))
IN_METHOD(odd_scope_in_method, tn_aml_scope_begin(a, "A"))
IN_METHOD(odd_return_none, tn_aml_return(a); tn_aml_end(a))
IN_METHOD(odd_return_device, tn_aml_return(a); tn_aml_device_begin(a, "D"))
IN_METHOD(odd_return_return, tn_aml_return(a); tn_aml_return(a))
IN_METHOD(odd_store_into_number, tn_aml_store(a); tn_aml_integer(a, 1); tn_aml_integer(a, 1))
IN_METHOD(odd_store_discard, tn_aml_store(a); tn_aml_integer(a, 1); tn_aml_discard(a))
IN_METHOD(odd_notify_number, tn_aml_notify(a); tn_aml_integer(a, 1))
IN_METHOD(odd_notify_if, tn_aml_notify(a); tn_aml_if_begin(a))
IN_METHOD(odd_if_none, tn_aml_if_begin(a); tn_aml_end(a))
IN_METHOD(odd_else, tn_aml_else_begin(a))
IN_METHOD(odd_else_late, tn_aml_if_begin(a); tn_aml_integer(a, 1); tn_aml_end(a); tn_aml_return(a);
          tn_aml_integer(a, 1); tn_aml_else_begin(a))
IN_METHOD(odd_else_twice, tn_aml_if_begin(a); tn_aml_integer(a, 1); tn_aml_end(a);
          tn_aml_else_begin(a); tn_aml_end(a); tn_aml_else_begin(a))
IN_METHOD(odd_else_of_method, tn_aml_if_begin(a); tn_aml_integer(a, 1); tn_aml_end(a);
          tn_aml_end(a); tn_aml_method_begin(a, "N", 0, false); tn_aml_else_begin(a))
IN_METHOD(odd_number, tn_aml_integer(a, 1))
IN_METHOD(odd_reference, tn_aml_path(a, "A"))
IN_METHOD(odd_local_in_package, tn_aml_return(a); tn_aml_package_begin(a); tn_aml_local(a, 1))
IN_METHOD(odd_code_in_device, tn_aml_device_begin(a, "D"); tn_aml_return(a))

static void terms_out_of_place_are_refused(void **state)
{
    static const struct {
        const char *name;
        emit *f;
    } row[] = {
        ROW(odd_end),
        ROW(odd_open),
        ROW(odd_two_ends),
        ROW(odd_no_value),
        ROW(odd_no_value_end),
        ROW(odd_value),
        ROW(odd_two_values),
        ROW(odd_name_name),
        ROW(odd_name_device),
        ROW(odd_name_path),
        ROW(odd_return),
        ROW(odd_store),
        ROW(odd_if),
        ROW(odd_notify),
        ROW(odd_else_first),
        ROW(odd_call),
        ROW(odd_operator),
        ROW(odd_local),
        ROW(odd_arg),
        ROW(odd_discard),
        ROW(odd_io),
        ROW(odd_memory32),
        ROW(odd_memory64),
        ROW(odd_irq),
        ROW(odd_interrupt),
        ROW(odd_unit),
        ROW(odd_skip),
        ROW(odd_package),
        ROW(odd_resources),
        ROW(odd_buffer),
        ROW(odd_eisa),
        ROW(odd_name_in_package),
        ROW(odd_op_in_package),
        ROW(odd_number_in_template),
        ROW(odd_number_in_field),
        ROW(odd_region_in_field),
        ROW(odd_field_in_name),
        ROW(odd_method_in_name),
        ROW(odd_scope_in_name),
        ROW(odd_scope_in_method),
        ROW(odd_return_none),
        ROW(odd_return_device),
        ROW(odd_return_return),
        ROW(odd_store_into_number),
        ROW(odd_store_discard),
        ROW(odd_notify_number),
        ROW(odd_notify_if),
        ROW(odd_if_none),
        ROW(odd_else),
        ROW(odd_else_late),
        ROW(odd_else_twice),
        ROW(odd_else_of_method),
        ROW(odd_number),
        ROW(odd_reference),
        ROW(odd_local_in_package),
        ROW(odd_code_in_device),
    };

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++)
        fails(row[i].name, row[i].f, TN_ESTATE);
}

static void levels_nest_to_the_limit(void **state)
{
    struct tn_aml a;

    (void)state;
    for (unsigned deep = TN_AML_DEPTH; deep <= TN_AML_DEPTH + 1; deep++) {
        tn_aml_init(&a, room, sizeof(room));
        for (unsigned i = 0; i < deep; i++)
            tn_aml_device_begin(&a, "D");
        for (unsigned i = 0; i < deep; i++)
            tn_aml_end(&a);
        if (deep == TN_AML_DEPTH)
            assert_true(tn_aml_finish(&a) > 0);
        else
            assert_int_equal(tn_aml_finish(&a), TN_ENOSPC);
    }
}

static void operands_nest_to_the_limit(void **state)
{
    struct tn_aml a;

    (void)state;
    for (unsigned n = 15; n <= 16; n++) { /* each And leaves its second term behind */
        tn_aml_init(&a, room, sizeof(room));
        tn_aml_method_begin(&a, "M", 0, false);
        for (unsigned i = 0; i < n; i++)
            tn_aml_operator(&a, TN_AML_LAND);
        for (unsigned i = 0; i < n + 1; i++)
            tn_aml_integer(&a, i % 2);
        tn_aml_end(&a);
        if (n == 15)
            assert_int_equal(tn_aml_finish(&a), 2 + 5 + 15 + 16);
        else
            assert_int_equal(tn_aml_finish(&a), TN_ENOSPC);
    }
}

static void a_package_has_255_elements_at_most(void **state)
{
    struct tn_aml a;

    (void)state;
    for (unsigned n = 254; n <= 256; n++) {
        tn_aml_init(&a, room, sizeof(room));
        tn_aml_name(&a, "A");
        tn_aml_package_begin(&a);
        for (unsigned i = 0; i < n; i++)
            tn_aml_integer(&a, 0);
        tn_aml_end(&a);
        if (n == 256) {
            assert_int_equal(tn_aml_finish(&a), TN_ENOSPC);
        } else {
            assert_int_equal(tn_aml_finish(&a), 5 + 1 + 2 + 1 + n);
            assert_int_equal(room[8], n);
        }
    }
}

static void a_path_has_255_segments_at_most(void **state)
{
    char path[1024];
    struct tn_aml a;

    (void)state;
    for (unsigned n = 255; n <= 256; n++) {
        for (unsigned i = 0; i < n; i++)
            memcpy(path + 2 * i, i + 1 < n ? "A." : "A\0", 3);
        tn_aml_init(&a, room, sizeof(room));
        tn_aml_name(&a, path);
        tn_aml_integer(&a, 0);
        if (n == 255) {
            assert_int_equal(tn_aml_finish(&a), 1 + 2 + 4 * 255 + 1);
            assert_int_equal(room[1], 0x2f);
            assert_int_equal(room[2], 255);
        } else {
            assert_int_equal(tn_aml_finish(&a), TN_EINVAL);
        }
    }
}

/* The value and the width of a PkgLength, by the specification's words. */
static uint32_t decode(const uint8_t *p, unsigned *width)
{
    unsigned more = p[0] >> 6;
    uint32_t v = more ? p[0] & 0x0f : p[0] & 0x3f;

    for (unsigned i = 0; i < more; i++)
        v |= (uint32_t)p[1 + i] << (4 + 8 * i);
    *width = more + 1;
    return v;
}

static void lengths_are_right_and_shortest(void **state)
{
    static const struct {
        uint32_t body;
        unsigned width;
    } row[] = {{0, 1},         {62, 1},        {63, 2},        {64, 2},      {4093, 2},
               {4094, 3},      {65536, 3},     {0xffffc, 3},   {0xffffd, 4}, {0xffffff, 4},
               {0xffffffb, 4}, {0xffffffc, 0}, {UINT32_MAX, 0}};
    uint8_t p[4];
    unsigned width;

    (void)state;
    for (size_t i = 0; i < COUNT(row); i++) {
        assert_int_equal(tn_aml_own_width_(row[i].body), row[i].width);
        if (row[i].width == 0)
            continue;
        tn_aml_length_(p, row[i].width, row[i].body + row[i].width);
        assert_int_equal(decode(p, &width), row[i].body + row[i].width);
        assert_int_equal(width, row[i].width);
    }
    assert_int_equal(tn_aml_own_width_(UINT64_MAX), 0);
    assert_int_equal(tn_aml_width_(0x3f), 1);
    assert_int_equal(tn_aml_width_(0x40), 2);
    assert_int_equal(tn_aml_width_(0x1000), 3);
    assert_int_equal(tn_aml_width_(0x100000), 4);
    assert_int_equal(tn_aml_width_(0x10000000), 0);
}

static void big_levels_move_up_whole(void **state)
{
    static const size_t size[] = {50,      51,      52,      53,      54,     255,
                                  256,     4080,    4086,    4090,    65535,  65536,
                                  1048560, 1048570, 1048575, 1048576, 1200000};

    (void)state;
    for (size_t i = 0; i < COUNT(size); i++) {
        size_t cap = size[i] + 64;
        uint8_t *bytes = malloc(size[i]), *buf = malloc(cap), *p;
        struct tn_aml a;
        unsigned width, prefix;
        int64_t len;

        for (size_t k = 0; k < size[i]; k++)
            bytes[k] = (uint8_t)(k * 7 + k / 256);
        tn_aml_init(&a, buf, cap);
        tn_aml_device_begin(&a, "DEV");
        tn_aml_name(&a, "DATA");
        tn_aml_buffer(&a, bytes, size[i]);
        tn_aml_end(&a);
        len = tn_aml_finish(&a);
        assert_true(len > 0);
        p = buf + 2;
        assert_int_equal(decode(p, &width), buf + len - p);
        p += width;
        assert_memory_equal(p,
                            "DEV_\x08"
                            "DATA\x11",
                            10);
        p += 10;
        assert_int_equal(decode(p, &width), buf + len - p);
        p += width;
        prefix = size[i] > 0xffff ? 4 : size[i] > 0xff ? 2 : 1;
        assert_int_equal(*p, prefix == 4 ? 0x0c : prefix == 2 ? 0x0b : 0x0a);
        assert_int_equal(tn_get_(p + 1, prefix), size[i]);
        p += 1 + prefix;
        assert_int_equal(buf + len - p, size[i]);
        assert_memory_equal(p, bytes, size[i]);
        free(buf);

        buf = malloc((size_t)len); /* exactly enough, and one too few */
        for (size_t less = 0; less < 2; less++) {
            tn_aml_init(&a, buf, (size_t)len - less);
            tn_aml_device_begin(&a, "DEV");
            tn_aml_name(&a, "DATA");
            tn_aml_buffer(&a, bytes, size[i]);
            tn_aml_end(&a);
            assert_int_equal(tn_aml_finish(&a), less ? TN_ENOSPC : len);
        }
        free(buf);
        free(bytes);
    }
}

static void the_first_error_stays(void **state)
{
    struct tn_aml a;

    (void)state;
    tn_aml_init(&a, NULL, 0);
    assert_int_equal(tn_aml_finish(&a), 0);
    tn_aml_name(&a, "lower");
    assert_int_equal(tn_aml_finish(&a), TN_ENOSPC);
    tn_aml_end(&a);
    tn_aml_end(&a);
    tn_aml_buffer(&a, NULL, SIZE_MAX);
    assert_int_equal(tn_aml_finish(&a), TN_ENOSPC);

    tn_aml_init(&a, room, sizeof(room));
    tn_aml_fail(&a, TN_EINVAL);
    tn_aml_fail(&a, TN_ESTATE);
    assert_int_equal(tn_aml_finish(&a), TN_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_names_and_numbers_are_refused),
        cmocka_unit_test(terms_out_of_place_are_refused),
        cmocka_unit_test(the_first_error_stays),
        cmocka_unit_test(levels_nest_to_the_limit),
        cmocka_unit_test(operands_nest_to_the_limit),
        cmocka_unit_test(a_package_has_255_elements_at_most),
        cmocka_unit_test(a_path_has_255_segments_at_most),
        cmocka_unit_test(terms_are_the_specifications_bytes),
        cmocka_unit_test(descriptors_sum_up_to_zero),
        cmocka_unit_test(lengths_are_right_and_shortest),
        cmocka_unit_test(big_levels_move_up_whole),
    };
    return cmocka_run_group_tests_name("aml", tests, NULL, NULL);
}
