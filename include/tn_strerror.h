/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tn_strerror - a sentence, and the name, for each error of tenon.
 *
 * WHAT
 *   Every other header returns numbers; this is the one place with words for them. A sentence
 *   begins with whose fault it is, since that is what a VMM acts on: "caller" (the code that made
 *   the call), "guest or file" (bytes that tenon was given), "environment" (the host), "tenon".
 *
 * USAGE
 *   const char *sentence = tn_strerror(TN_ETRUNC);
 *   const char *name = tn_errname(TN_ETRUNC);
 *
 *   if (sentence[0] == '\0' || name[0] != 'T')
 *       return 1;
 *
 * COMPOSITION
 *   For a program's messages and logs; no other header of tenon calls it.
 *
 * GUEST TRUST
 *   Any int is a fair argument. The strings hold nothing of a guest's.
 *
 * MEMORY
 *   The strings are constants: they live as long as the program, and nobody frees them.
 *
 * THREADS
 *   Pure functions; safe in a signal handler too.
 *
 * CONFIG
 *   none.
 *
 * LIMITS
 *   English. What errno says of a TN_ESYS is the C library's strerror's to tell.
 */
#ifndef TN_STRERROR_H
#define TN_STRERROR_H

/* -- tenon common block: the same bytes in every header (make check-common) -- */
/* clang-format off */
#ifndef TN_COMMON
#define TN_COMMON
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#if !defined(TN_API) && defined(TN_DECL_ONLY)
#define TN_API extern
#elif !defined(TN_API)
#define TN_API static inline
#endif
enum tn_err { TN_OK = 0, /* or a useful positive value; tn_strerror.h has a sentence for each */
    /* the caller's fault */ TN_EINVAL = -1, TN_ENOSPC = -2, TN_ESTATE = -3, TN_EEXIST = -4,
    /* the guest's, or a file's */ TN_EADDR = -32, TN_EFORMAT = -33, TN_ETRUNC = -34,
    TN_ERANGE = -35, TN_EOVERLAP = -36, TN_EMACHINE = -37, TN_EENTRY = -38, TN_ENOFIT = -39,
    TN_EUNSUP = -40, TN_EPROTO = -41, /* the environment's; errno tells */ TN_ESYS = -64,
    TN_EAGAIN = -65, TN_ENODEV = -66, /* ours */ TN_EBUG = -96 };
struct tn_iov { uint8_t *base; size_t len; }; /* memory in this process; as struct iovec */
/*@ requires n <= 8 && \valid_read(p + (0 .. n - 1)); assigns \nothing; */
static inline uint64_t tn_get_(const volatile uint8_t *p, unsigned n) /* little-endian load */
{
    uint64_t v = 0;
    /*@ loop invariant n <= \at(n, Pre); loop assigns n, v; loop variant n; */
    while (n > 0) v = v << 8 | p[--n];
    return v;
}
/*@ requires n <= 8 && \valid(p + (0 .. n - 1)); assigns p[0 .. n - 1]; */
static inline void tn_put_(uint8_t *p, unsigned n, uint64_t v) /* little-endian store */
{
    /*@ loop invariant i <= n; loop assigns i, p[0 .. n - 1]; loop variant n - i; */
    for (unsigned i = 0; i < n; i++) p[i] = (uint8_t)(v >> 8 * i);
}
#endif /* TN_COMMON */
/* clang-format on */

#ifdef __cplusplus
extern "C" {
#endif

/* ---- part 1: the API ---------------------------------------------------------------------- */

/*
 * A sentence for err, without a full stop: "success" for 0 and above, since results that are not
 * negative are values; "unknown error" for a number that is no enum tn_err. Never NULL.
 */
TN_API const char *tn_strerror(int err);

/*
 * The name of err as C code spells it, "TN_EADDR"; "TN_OK" for 0 and above, "unknown" for a number
 * that is no enum tn_err. Never NULL.
 */
TN_API const char *tn_errname(int err);

/*
 * A sentence for tn_loader's detail, enum tn_loader_detail: what it found and what the limit is.
 * Never NULL. (The numbers stand here again, since a leaf includes no other header.)
 */
TN_API const char *tn_strerror_loader(uint32_t detail);

/* ---- part 2: the bodies ------------------------------------------------------------------- */
#ifndef TN_DECL_ONLY

/* clang-format off */
#define TN_STRERROR_LIST_(X) \
    X(TN_OK, "success") \
    X(TN_EINVAL, "caller: an argument is not one that the function accepts") \
    X(TN_ENOSPC, "caller: the table or buffer that was given is too small") \
    X(TN_ESTATE, "caller: the call is not allowed in the present state") \
    X(TN_EEXIST, "caller: what is to be added is there already, or collides with what is") \
    X(TN_EADDR, "guest or file: an address is not in guest memory, or is not aligned") \
    X(TN_EFORMAT, "guest or file: the bytes are not in the expected format") \
    X(TN_ETRUNC, "guest or file: the data ends before what it announces") \
    X(TN_ERANGE, "guest or file: a number is outside the range that its format allows") \
    X(TN_EOVERLAP, "guest or file: two parts overlap that must lie apart") \
    X(TN_EMACHINE, "guest or file: it is made for another kind of machine") \
    X(TN_EENTRY, "guest or file: the entry point is not inside what is loaded") \
    X(TN_ENOFIT, "guest or file: it does not fit into the room that there is for it") \
    X(TN_EUNSUP, "guest or file: it asks for a feature that is not supported") \
    X(TN_EPROTO, "guest or file: it breaks the protocol, or does not match its digest") \
    X(TN_ESYS, "environment: a system call failed; errno tells why") \
    X(TN_EAGAIN, "environment: not now; the same call may succeed later") \
    X(TN_ENODEV, "environment: this host lacks the device or the feature; errno may tell why") \
    X(TN_EBUG, "tenon: a check of its own state failed; this is a bug, please report it")
/* clang-format on */

/*
 * No default: the compiler names the enumerator that the list has not. The bound keeps the value
 * inside the range of the enumeration, which C++ asks of a conversion.
 */
#define TN_STRERROR_SENTENCE_(code, sentence) \
    case code:                                \
        return sentence;
#define TN_STRERROR_NAME_(code, sentence) \
    case code:                            \
        return #code;

TN_API const char *tn_strerror(int err)
{
    if (err >= 0)
        return "success";
    if (err >= TN_EBUG) {
        switch ((enum tn_err)err) {
            TN_STRERROR_LIST_(TN_STRERROR_SENTENCE_)
        }
    }
    return "unknown error";
}

TN_API const char *tn_errname(int err)
{
    if (err >= 0)
        return "TN_OK";
    if (err >= TN_EBUG) {
        switch ((enum tn_err)err) {
            TN_STRERROR_LIST_(TN_STRERROR_NAME_)
        }
    }
    return "unknown";
}

/* The header of a zboot image has the offset of what is packed in it as a number at byte 8. */
#define TN_STRERROR_ZBOOT_(how, unpack)                             \
    "an EFI zboot image, packed by " how "; unpack what is in it: " \
    "tail -c +$(($(od -An -tu4 -j8 -N4 FILE) + 1)) FILE | " unpack " >KERNEL"

TN_API const char *tn_strerror_loader(uint32_t detail)
{
    switch (detail) {
    case 0u:
        return "no error";
    case 1u:
        return "the file is empty";
    case 2u:
        return "the file is too short to tell what it is";
    case 3u:
        return "neither an ELF file, a bzImage nor an Image";
    case 4u:
        return "a bzImage; this machine is not x86-64";
    case 5u:
        return "an arm64 Image; this machine is another";
    case 6u:
        return "a riscv64 Image; this machine is another";
    case 7u:
        return "compressed by gzip; unpack it first: gzip -dc FILE >KERNEL";
    case 8u:
        return "compressed by bzip2; unpack it first: bzip2 -dc FILE >KERNEL";
    case 9u:
        return "compressed by lzma; unpack it first: xz -dc -F lzma FILE >KERNEL";
    case 10u:
        return "compressed by xz; unpack it first: xz -dc FILE >KERNEL";
    case 11u:
        return "compressed by lzo; unpack it first: lzop -dc FILE >KERNEL";
    case 12u:
        return "compressed by lz4; unpack it first: lz4 -dc FILE >KERNEL";
    case 13u:
        return "compressed by zstd; unpack it first: zstd -dc FILE >KERNEL";
    case 16u:
        return "the file ends inside the 64-byte ELF header";
    case 17u:
        return "a 32-bit ELF file; only 64-bit ones are loaded";
    case 18u:
        return "a big-endian ELF file; this machine is little-endian";
    case 19u:
        return "e_ident has an unknown class, byte order or version";
    case 20u:
        return "e_machine is another machine's";
    case 21u:
        return "e_type is neither ET_EXEC nor ET_DYN";
    case 22u:
        return "e_phentsize is not 56";
    case 23u:
        return "e_phnum is above the limit of 64";
    case 24u:
        return "the program headers lie beyond the end of the file";
    case 25u:
        return "no PT_LOAD segment has any bytes";
    case 26u:
        return "more PT_LOAD segments than the limit of 16";
    case 27u:
        return "a segment's p_filesz is above its p_memsz";
    case 28u:
        return "a segment's bytes lie beyond the end of the file";
    case 29u:
        return "a segment's p_paddr + p_memsz is above the limit of 2^52";
    case 30u:
        return "two segments overlap in guest memory";
    case 31u:
        return "e_entry is in no segment's bytes from the file";
    case 32u:
        return "e_entry is zero or a virtual address, and there is no PVH entry";
    case 33u:
        return "a PT_NOTE lies beyond the end of the file";
    case 34u:
        return "a note's n_namesz passes the end of its PT_NOTE";
    case 35u:
        return "a note's n_descsz passes the end of its PT_NOTE";
    case 36u:
        return "more notes in a PT_NOTE than the limit of 1024";
    case 37u:
        return "the PVH note holds neither 4 nor 8 bytes";
    case 38u:
        return "the PVH entry is above 4 GiB";
    case 39u:
        return "the PVH entry is not in what is loaded";
    case 64u:
        return "boot_flag is not 0xaa55";
    case 65u:
        return "the file ends inside the bzImage's setup part";
    case 66u:
        return "the boot protocol is below 2.00, or not 2.x";
    case 67u:
        return "the setup header's length, from its jump, is out of range";
    case 68u:
        return "LOADED_HIGH is clear: a zImage";
    case 69u:
        return "syssize passes the end of the file";
    case 70u:
        return "syssize ends before the entry, which is at 0, or at 0x200 of a 64-bit kernel";
    case 71u:
        return "kernel_alignment is not a power of two";
    case 72u:
        return "min_alignment is above kernel_alignment";
    case 73u:
        return "pref_address is not aligned to kernel_alignment";
    case 74u:
        return "pref_address + init_size is above the limit of 4 GiB, or of 2^52";
    case 80u:
        return "the file ends inside the 64-byte Image header";
    case 81u:
        return "a big-endian Image; this machine is little-endian";
    case 82u:
        return "the version of the Image header is not 0.2, nor a later 0.x";
    case 83u:
        return "image_size is 0";
    case 84u:
        return "text_offset is not a multiple of 2 MiB";
    case 85u:
        return "text_offset + image_size is above the limit of 2^52";
    case 96u:
        return "a segment is not whole in one range of RAM";
    case 97u:
        return "a segment overlaps what the machine keeps for itself";
    case 98u:
        return "the init_size bytes of the kernel do not lie in RAM";
    case 99u:
        return "the init_size bytes of the kernel overlap what the machine keeps for itself";
    case 100u:
        return "no place in RAM is large enough for the kernel's init_size";
    case 101u:
        return "the entry is not in what is loaded";
    case 112u:
        return TN_STRERROR_ZBOOT_("gzip", "gzip -dc");
    case 113u:
        return TN_STRERROR_ZBOOT_("lzma", "xz -dc -F lzma");
    case 114u:
        return TN_STRERROR_ZBOOT_("xz", "xz -dc");
    case 115u:
        return TN_STRERROR_ZBOOT_("lzo", "lzop -dc");
    case 116u:
        return TN_STRERROR_ZBOOT_("lz4", "lz4 -dc");
    case 117u:
        return TN_STRERROR_ZBOOT_("zstd", "zstd -dc");
    case 118u:
        return "an EFI zboot image, packed in an unknown way; boot what is in it instead";
    default:
        return "unknown detail";
    }
}

#undef TN_STRERROR_ZBOOT_
#undef TN_STRERROR_SENTENCE_
#undef TN_STRERROR_NAME_
#undef TN_STRERROR_LIST_

#endif /* TN_DECL_ONLY */

#ifdef __cplusplus
}
#endif

#endif /* TN_STRERROR_H */
