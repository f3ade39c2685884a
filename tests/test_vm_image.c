/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "tn_vm_image.h"

#include <sched.h>
#include <sys/mount.h>

#include "snap_forge.h"
#include "vm_wired.h"

#define PAGES_OF_RAM (RAM / TN_VM_IMAGE_PAGE)
#define GENID_PAGE   (TN_VM_X86_GENID_GPA / TN_VM_IMAGE_PAGE)

static struct tn_loop loop;
static struct con con;
static struct tn_vm vm, other;
static struct tn_vm_image image;
static uint8_t *ram; /* as large as a machine's */

static int open_up(void **state)
{
    (void)state;
    alarm(300);
    memset(&vm, 0, sizeof(vm));
    memset(&other, 0, sizeof(other));
    con_open(&con);
    ram = malloc(RAM);
    return ram ? tn_loop_init(&loop) : -1;
}

static int shut(void **state)
{
    (void)state;
    tn_vm_close(&vm);
    tn_vm_close(&other);
    tn_vm_image_close(&image);
    tn_loop_close(&loop);
    con_close(&con);
    free(ram);
    for (int i = 0; i < 80; i++) {
        char path[100];

        snprintf(path, sizeof(path), "%s/d%d", dir, i);
        remove_dir(path);
    }
    alarm(0);
    return count_fds() == (int)fds_before ? 0 : -1;
}

static const char *d(int i)
{
    return name_of("d%d", i);
}

static const char *in(int i, const char *file)
{
    return name_of("d%d/%s", i, file);
}

static int try_write(const char *to, bool diff)
{
    struct tn_vm_snapshot_cfg cfg;

    memset(&cfg, 0, sizeof(cfg));
    cfg.dir = to;
    cfg.diff = diff;
    return tn_vm_snapshot(&vm, &cfg);
}

static void write_dir(int i, bool diff)
{
    int r = try_write(d(i), diff);

    if (r < 0)
        fail_msg("snapshot %d: %d, errno %d", i, r, errno);
}

static int try_open(const char *from, const char *parent, bool lazy)
{
    struct tn_vm_image_cfg cfg;

    memset(&cfg, 0, sizeof(cfg));
    cfg.dir = from;
    cfg.parent = parent;
    cfg.lazy = lazy;
    return tn_vm_image_open(&image, NULL, &cfg);
}

/* Opens what must be refused so, and for that reason. */
static void refused(const char *from, int want, const char *file, uint32_t depth)
{
    for (int lazy = 0; lazy < 2; lazy++) {
        int r = try_open(from, NULL, lazy && want != TN_EPROTO);

        if (r != want || !image.fault.file != !file ||
            (file && strcmp(image.fault.file, file) != 0) || image.fault.depth != depth)
            fail_msg("%d, not %d (errno %d): file %s, not %s, at %llu, depth %u", r, want, errno,
                     image.fault.file, file, (unsigned long long)image.fault.at, image.fault.depth);
        assert_int_equal(image.layers, 0);
        assert_null(image.state.arch.cpu);
        tn_vm_image_close(&image);
    }
}

/* The memory of a directory is the machine's. */
static void same_memory(int i)
{
    int r = try_open(d(i), NULL, false);

    if (r < 0)
        fail_msg("open %d: %d, %s at %llu, depth %u", i, r, image.fault.file,
                 (unsigned long long)image.fault.at, image.fault.depth);
    assert_int_equal(tn_vm_image_read(&image, 0, ram, RAM), 0);
    for (uint64_t p = 0; p < PAGES_OF_RAM; p++) {
        if (memcmp(ram + p * TN_VM_IMAGE_PAGE, vm.ram.ptr + p * TN_VM_IMAGE_PAGE, 4096) != 0)
            fail_msg("snapshot %d: page %#llx is another", i, (unsigned long long)p);
    }
    tn_vm_image_close(&image);
}

static uint64_t size_of(const char *path)
{
    struct stat st;

    return stat(path, &st) < 0 ? UINT64_MAX : (uint64_t)st.st_size;
}

/* Whether the top layer of the image, which is a diff, has a page. */
static bool has_page(uint64_t page)
{
    const struct tn_vm_layer *l = &image.layer[image.layers - 1];

    for (uint32_t i = 0; i < l->runs; i++) {
        if (page >= l->run[i].first && page - l->run[i].first < l->run[i].count)
            return true;
    }
    return false;
}

/* A machine that is ready and paused. */
static void ready(const char *words, bool track)
{
    boot(&vm, &loop, &con, words, 1, track);
    hear(&vm, &loop, &con, 0, "ready\n");
    assert_int_equal(tn_vm_pause(&vm), 0);
}

/* Lets it do its work once, for a byte. */
static void work(struct tn_vm *m, char c)
{
    char text[2] = {c, 0};
    size_t from = con.len;

    assert_int_equal(m->state == TN_VM_CREATED ? tn_vm_start(m) : tn_vm_resume(m), 0);
    con_type(&con, text);
    hear(m, &loop, &con, from, "\n");
    assert_int_equal(tn_vm_pause(m), 0);
}

/* Nothing is left of what failed, and the machine goes on. */
static void still_alive(void)
{
    work(&vm, 'z');
}

/* ---- a snapshot that can't be written ---- */

static void nowhere_to_write(void **state)
{
    struct stat st;
    const char *link = name_of("link"), *file = name_of("file");

    (void)state;
    NEED_KVM();
    ready("dirty 10", true);
    assert_int_equal(try_write(NULL, false), TN_EINVAL);
    assert_int_equal(try_write("", false), TN_EINVAL);
    assert_int_equal(try_write(name_of("not/there"), false), TN_ESYS);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(try_write("/proc/self/net", false) < 0, true);
    file_of("file", 10, 1);
    assert_int_equal(try_write(file, false), TN_ESYS);
    assert_int_equal(try_write(name_of("file/under"), false), TN_ESYS);
    assert_int_equal(symlink("/not/there", link), 0);
    assert_int_equal(try_write(link, false), TN_ESYS);
    unlink(link);
    assert_int_equal(try_write(d(0), true), TN_ESTATE); /* there is nothing to be a diff of */
    assert_int_equal(stat(d(0), &st), -1);
    /* A directory that has something in it, whatever it is, keeps it. */
    for (int i = 0; i < 6; i++) {
        static const char *const names[] = {"state",      "memory", "disk0.overlay",
                                            "state.part", "x",      ".hidden"};
        size_t len;
        uint8_t *bytes;

        assert_int_equal(mkdir(d(i), 0700), 0);
        spill(in(i, names[i]), (const uint8_t *)"mine", 4);
        assert_int_equal(try_write(d(i), false), TN_EEXIST);
        bytes = slurp(in(i, names[i]), &len);
        assert_int_equal(len, 4);
        assert_memory_equal(bytes, "mine", 4);
        free(bytes);
        assert_int_equal(unlink(in(i, names[i])), 0);
        assert_int_equal(rmdir(d(i)), 0); /* that was all */
    }
    still_alive();
    /* One that is empty is fine; and then it is not empty any more. */
    assert_int_equal(mkdir(d(7), 0700), 0);
    write_dir(7, false);
    assert_int_equal(try_write(d(7), false), TN_EEXIST);
    same_memory(7);
    if (geteuid() == 0) {
        assert_int_equal(mkdir(d(8), 0700), 0);
        assert_int_equal(seteuid(65534), 0);
        assert_int_equal(try_write(d(8), false), TN_ESYS);
        assert_int_equal(errno, EACCES);
        assert_int_equal(seteuid(0), 0);
        assert_int_equal(rmdir(d(8)), 0);
    }
    still_alive();
    write_dir(9, true);
    same_memory(9);
}

/* The directory is as if nobody had tried. */
static void no_trace(int i)
{
    struct dirent *e;
    DIR *dp = opendir(d(i));

    while (dp && (e = readdir(dp))) {
        if (e->d_name[0] != '.')
            fail_msg("%s is left", e->d_name);
    }
    if (dp)
        closedir(dp);
    (void)rmdir(d(i));
}

static void no_room(void **state)
{
    static const rlim_t full[] = {0, 1, 4096, 65536, RAM - 1, RLIM_INFINITY};
    struct rlimit was, lim;

    (void)state;
    NEED_KVM();
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    ready("dirty 64", true);
    write_dir(1, false);
    for (int diff = 1; diff >= 0; diff--) {
        int failed = 0, last = 0;

        work(&vm, (char)('a' + diff));
        for (unsigned i = 0; i < COUNT(full) && (i == 0 || last < 0); i++) {
            lim = was;
            lim.rlim_cur = diff && i == 4 ? 66 * 4096 : full[i];
            assert_int_equal(setrlimit(RLIMIT_FSIZE, &lim), 0);
            last = try_write(d(2 + diff), diff);
            assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
            if (last < 0) {
                assert_int_equal(last, TN_ESYS);
                assert_int_equal(errno, EFBIG);
                no_trace(2 + diff);
                failed++;
            }
        }
        assert_true(failed >= 4);
        same_memory(2 + diff); /* what the attempts that failed took from the log is in it */
    }
    still_alive();
}

static void no_space(void **state)
{
    const char *at = d(1);

    (void)state;
    NEED_KVM();
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mkdir(at, 0700) < 0 || mount("tmpfs", at, "tmpfs", 0, "size=64k") < 0)
        SKIP("a tmpfs may not be mounted");
    ready("dirty 64", true);
    write_dir(2, false);
    work(&vm, 'a');
    for (int diff = 1; diff >= 0; diff--) {
        assert_int_equal(try_write(name_of("d1/s"), diff), TN_ESYS);
        assert_int_equal(errno, ENOSPC);
        assert_int_equal(rmdir(name_of("d1/s")), 0);
    }
    still_alive();
    write_dir(3, true);
    same_memory(3);
    assert_int_equal(umount(at), 0);
}

/* ---- diffs ---- */

static void diffs_want_a_parent(void **state)
{
    (void)state;
    NEED_KVM();
    ready("dirty 10", false);
    write_dir(1, false);
    assert_int_equal(try_write(d(2), true), TN_ESTATE); /* nobody noted what was written */
    assert_int_equal(access(d(2), F_OK), -1);
    same_memory(1);
}

static void diffs_have_what_changed(void **state)
{
    uint8_t bytes[TN_VM_IMAGE_PAGE * 2];
    char *said, *again;
    size_t len;

    (void)state;
    NEED_KVM();
    ready("dirty 100", true);
    write_dir(0, false);
    same_memory(0);
    for (int i = 1; i < 6; i++) {
        uint64_t pages, differ = 0;

        if (i == 4) { /* the host writes, too: at the end of a page and the beginning of the next */
            memset(bytes, 0xa5, sizeof(bytes));
            assert_int_equal(tn_mem_write(&vm.mem, 0x700000 + 4090, bytes, 4102), 0);
            assert_int_equal(tn_vm_x86_new_id(&vm.board, &vm.mem), 0);
        }
        if (i != 5)
            work(&vm, (char)('0' + i));
        write_dir(i, true);
        same_memory(i);
        assert_int_equal(try_open(d(i), NULL, true), 0);
        assert_int_equal(image.layers, i + 1);
        pages = size_of(in(i, "memory")) / TN_VM_IMAGE_PAGE;
        assert_int_equal(size_of(in(i, "memory")) % TN_VM_IMAGE_PAGE, 0);
        /* Each page that is another now is in it; there are not many more. */
        assert_int_equal(tn_vm_image_read(&image, 0, ram, RAM), 0);
        image.layers--;
        for (uint64_t p = 0; p < PAGES_OF_RAM; p++) {
            assert_int_equal(tn_vm_image_read(&image, p * 4096, bytes, 4096), 0);
            if (memcmp(bytes, ram + p * 4096, 4096) != 0) {
                differ++;
                image.layers++;
                if (!has_page(p))
                    fail_msg("diff %d has not page %#llx", i, (unsigned long long)p);
                image.layers--;
            }
        }
        image.layers++;
        if (pages > differ + 16 || (i != 5 && differ < 100) || (i == 5 && pages > 16))
            fail_msg("diff %d has %llu pages for %llu", i, (unsigned long long)pages,
                     (unsigned long long)differ);
        if (i == 4)
            assert_true(has_page(0x700) && has_page(0x701) && has_page(GENID_PAGE));
        tn_vm_image_close(&image);
    }
    /* A whole one in the midst is what the next diff is of. */
    write_dir(6, false);
    work(&vm, 'x');
    write_dir(7, true);
    same_memory(7);
    assert_int_equal(try_open(d(7), NULL, true), 0);
    assert_int_equal(image.layers, 2);
    tn_vm_image_close(&image);
    /* What goes on from a diff says what the machine itself says. */
    len = con.len;
    work(&vm, 'y');
    said = strdup(con.seen + len);
    tn_vm_close(&vm);
    for (int i = 0; i < 3; i++) {
        struct tn_vm_image_cfg from;
        struct tn_vm_clone_cfg cfg;

        memset(&from, 0, sizeof(from));
        from.dir = d(7);
        from.lazy = i == 1;
        assert_int_equal(tn_vm_image_open(&image, &kvm, &from), 0);
        own(&cfg, &con);
        cfg.memory = (uint32_t)i;
        assert_int_equal(tn_vm_restore(&other, &kvm, &loop, &image, &cfg), 0);
        len = con.len;
        work(&other, 'y');
        again = con.seen + len;
        assert_string_equal(again, said);
        tn_vm_close(&other);
        tn_vm_image_close(&image);
    }
    free(said);
}

/* Diffs of what was restored itself, by every kind of memory. */
static void diffs_of_clones(void **state)
{
    struct tn_vm_clone_cfg cfg;
    struct tn_vm_image_cfg from;
    int at = 1;

    (void)state;
    NEED_KVM();
    ready("dirty 100", true);
    write_dir(0, false);
    for (uint32_t how = 0; how < 3; how++) {
        for (int more = 0; more < 2; more++) {
            tn_vm_close(&vm);
            memset(&from, 0, sizeof(from));
            from.dir = d(at - 1);
            from.lazy = how == TN_VM_MEMORY_LAZY;
            assert_int_equal(tn_vm_image_open(&image, &kvm, &from), 0);
            own(&cfg, &con);
            cfg.memory = how;
            cfg.track_dirty = true;
            con_cut(&con, con.len);
            assert_int_equal((more ? tn_vm_fork : tn_vm_restore)(&vm, &kvm, &loop, &image, &cfg),
                             0);
            work(&vm, (char)('a' + at));
            write_dir(at, true);
            other = vm; /* the image is closed while its clone lives, so what same_memory */
            {           /* opens is another one */
                struct tn_vm_image keep = image;

                memset(&image, 0, sizeof(image));
                same_memory(at);
                assert_int_equal(try_open(d(at), NULL, true), 0);
                assert_int_equal(image.layers, at + 1);
                assert_int_equal(has_page(GENID_PAGE), more);
                assert_true(size_of(in(at, "memory")) < 200 * 4096);
                tn_vm_image_close(&image);
                image = keep;
            }
            memset(&other, 0, sizeof(other));
            tn_vm_close(&vm);
            tn_vm_image_close(&image);
            at++;
        }
    }
}

/* What a reset puts back has not been written by anybody, and yet it has changed. */
static void diffs_after_a_reset(void **state)
{
    struct tn_vm_clone_cfg cfg;
    struct tn_vm_image_cfg from;
    struct tn_vm_image keep;

    (void)state;
    NEED_KVM();
    ready("dirty 100", true);
    write_dir(0, false);
    tn_vm_close(&vm);
    memset(&from, 0, sizeof(from));
    from.dir = d(0);
    assert_int_equal(tn_vm_image_open(&keep, &kvm, &from), 0);
    own(&cfg, &con);
    cfg.track_dirty = true;
    assert_int_equal(tn_vm_fork(&vm, &kvm, &loop, &keep, &cfg), 0);
    work(&vm, 'a');
    write_dir(1, true);
    same_memory(1);
    assert_int_equal(tn_vm_reset(&vm), 0);
    write_dir(2, true);
    same_memory(2);
    work(&vm, 'b');
    write_dir(3, true);
    same_memory(3);
    assert_int_equal(tn_vm_reset(&vm), 0);
    work(&vm, 'c');
    write_dir(4, true);
    same_memory(4);
    tn_vm_close(&vm);
    tn_vm_image_close(&keep);
}

static void parents(void **state)
{
    (void)state;
    NEED_KVM();
    ready("dirty 20", true);
    write_dir(0, false);
    work(&vm, 'a');
    write_dir(1, true);
    work(&vm, 'b');
    write_dir(2, true);
    write_dir(3, false); /* another whole one */
    same_memory(2);
    /* Moved: the diff does not know, who opens it does. */
    assert_int_equal(rename(d(1), d(10)), 0);
    refused(d(2), TN_ESYS, "state", 1);
    assert_int_equal(try_open(d(2), d(10), false), 0);
    tn_vm_image_close(&image);
    assert_int_equal(rename(d(10), d(1)), 0);
    assert_int_equal(rename(d(0), d(10)), 0);
    refused(d(2), TN_ESYS, "state", 2);
    refused(d(1), TN_ESYS, "state", 1);
    /* Another one in its place, and the diff itself. */
    assert_int_equal(rename(d(3), d(0)), 0);
    refused(d(2), TN_EPROTO, "state", 2);
    refused(d(1), TN_EPROTO, "state", 1);
    assert_int_equal(try_open(d(2), d(2), false), TN_EPROTO);
    assert_int_equal(try_open(d(2), d(0), false), TN_EPROTO);
    assert_int_equal(try_open(d(0), d(2), false), 0); /* not a diff: nobody looks */
    tn_vm_image_close(&image);
    assert_int_equal(rename(d(0), d(3)), 0);
    assert_int_equal(rename(d(10), d(0)), 0);
    same_memory(2);
    /* A page of the lowest that the others don't hide. */
    {
        int fd = open(in(0, "memory"), O_RDWR | O_CLOEXEC);
        uint8_t byte;

        assert_int_equal(pread(fd, &byte, 1, 0x100000), 1);
        byte ^= 1;
        assert_int_equal(pwrite(fd, &byte, 1, 0x100000), 1);
        close(fd);
        refused(d(2), TN_EPROTO, "memory", 0); /* a digest is of all of them */
    }
}

static void chains_have_an_end(void **state)
{
    (void)state;
    NEED_KVM();
    ready("dirty 1", true);
    write_dir(0, false);
    for (int i = 1; i < (int)TN_VM_IMAGE_LAYERS; i++) {
        if (i % 8 == 0)
            work(&vm, 'a');
        write_dir(i, true);
    }
    same_memory((int)TN_VM_IMAGE_LAYERS - 1);
    write_dir((int)TN_VM_IMAGE_LAYERS, true);
    refused(d((int)TN_VM_IMAGE_LAYERS), TN_ERANGE, "state", TN_VM_IMAGE_LAYERS);
}

/* ---- files that somebody changed ---- */

static void put_aside(const char *path)
{
    assert_int_equal(rename(path, name_of("aside")), 0);
}

static void put_back(const char *path)
{
    (void)unlink(path);
    (void)rmdir(path);
    assert_int_equal(rename(name_of("aside"), path), 0);
}

/* The same for each file of a directory: it is not there, no file, a link, empty. */
static void no_such_file(int i, const char *file, const char *fault)
{
    const char *path = in(i, file);
    int want = strcmp(file, "state") == 0 ? TN_EFORMAT : TN_ETRUNC;

    put_aside(path);
    refused(d(i), TN_ESYS, fault, 0);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(symlink(name_of("aside"), path), 0);
    refused(d(i), TN_ESYS, fault, 0);
    assert_int_equal(errno, ELOOP);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    refused(d(i), TN_ESYS, fault, 0);
    unlink(path);
    assert_int_equal(mkdir(path, 0700), 0);
    refused(d(i), TN_ESYS, fault, 0);
    rmdir(path);
    spill(path, NULL, 0);
    refused(d(i), want == TN_EFORMAT ? TN_ETRUNC : want, fault, 0);
    put_back(path);
}

static void memory_of_others(void **state)
{
    static const struct {
        int64_t by;
        int want;
    } lengths[] = {{-1, TN_ETRUNC},    {-4096, TN_ETRUNC}, {-(int64_t)RAM, TN_ETRUNC},
                   {1, TN_EFORMAT},    {4096, TN_EFORMAT}, {1ll << 40, TN_EFORMAT},
                   {65536, TN_EFORMAT}};

    (void)state;
    NEED_KVM();
    ready("dirty 20", true);
    write_dir(0, false);
    work(&vm, 'a');
    write_dir(1, true);
    tn_vm_close(&vm);
    for (int i = 0; i < 2; i++) {
        uint64_t size = size_of(in(i, "memory"));
        int fd = open(in(i, "memory"), O_RDWR | O_CLOEXEC);
        uint64_t random = 1;

        assert_true(fd >= 0);
        no_such_file(i, "memory", "memory");
        for (size_t k = 0; k < COUNT(lengths); k++) {
            uint8_t *keep = malloc(size);

            if (lengths[k].by < 0 && (uint64_t)-lengths[k].by > size) {
                free(keep);
                continue;
            }
            assert_int_equal(pread(fd, keep, size, 0), (ssize_t)size);
            if (ftruncate(fd, (off_t)((int64_t)size + lengths[k].by)) == 0)
                refused(d(i), lengths[k].want, "memory", 0);
            assert_int_equal(ftruncate(fd, (off_t)size), 0);
            assert_int_equal(pwrite(fd, keep, size, 0), (ssize_t)size);
            free(keep);
        }
        assert_int_equal(try_open(d(i), NULL, false), 0);
        tn_vm_image_close(&image);
        /* A bit of each of many pages. */
        for (uint64_t page = 0; page < size / 4096; page += is_long() ? 1 : i ? 3 : 91) {
            off_t at = (off_t)(page * 4096 + test_random(&random) % 4096);
            uint8_t was, byte;

            assert_int_equal(pread(fd, &was, 1, at), 1);
            byte = was ^ (uint8_t)(1u << test_random(&random) % 8);
            assert_int_equal(pwrite(fd, &byte, 1, at), 1);
            assert_int_equal(try_open(d(i), NULL, false), TN_EPROTO);
            assert_string_equal(image.fault.file, "memory");
            if (i == 0)
                assert_int_equal(image.fault.at,
                                 (uint64_t)at / TN_VM_IMAGE_CHUNK * TN_VM_IMAGE_CHUNK);
            assert_int_equal(pwrite(fd, &was, 1, at), 1);
        }
        close(fd);
        assert_int_equal(try_open(d(i), NULL, false), 0);
        tn_vm_image_close(&image);
    }
}

static void state_of_others(void **state)
{
    uint8_t *bytes, *copy;
    uint64_t random = 7;
    size_t len;

    (void)state;
    NEED_KVM();
    ready("dirty 20", true);
    write_dir(0, false);
    work(&vm, 'a');
    write_dir(1, true);
    tn_vm_close(&vm);
    for (int i = 0; i < 2; i++) {
        bytes = slurp(in(i, "state"), &len);
        copy = malloc(len + 1);
        assert_non_null(copy);
        no_such_file(i, "state", "state");
        for (size_t k = 0; k < (is_long() ? len : 200); k++) {
            size_t at = is_long() ? k : test_random(&random) % len;

            memcpy(copy, bytes, len);
            copy[at] ^= (uint8_t)(1u << test_random(&random) % 8);
            spill(in(i, "state"), copy, len);
            if (try_open(d(i), NULL, true) >= 0 || !image.fault.file ||
                strcmp(image.fault.file, "state") != 0)
                fail_msg("flip at %zu of %zu", at, len);
            spill(in(i, "state"), bytes, at);
            if (try_open(d(i), NULL, true) >= 0 || !image.fault.file ||
                strcmp(image.fault.file, "state") != 0)
                fail_msg("cut at %zu of %zu", at, len);
        }
        copy[len] = 0;
        memcpy(copy, bytes, len);
        spill(in(i, "state"), copy, len + 1);
        refused(d(i), TN_EFORMAT, "state", 0);
        /* The sections of the directory: a diff's pages where there is none, and none. */
        spill(in(i, "state"), bytes, len);
        free(copy);
        free(bytes);
    }
    /* Too much of it: a gigabyte is not even read. */
    assert_int_equal(truncate(in(0, "state"), (1ll << 30) + 1), 0);
    refused(d(0), TN_ERANGE, "state", 0);
    assert_int_equal(truncate(in(0, "state"), (1ll << 30)), 0);
    assert_true(try_open(d(0), NULL, false) < 0);
}

/* The payload of a section in a state file. */
static uint8_t *section_in(uint8_t *bytes, size_t len, uint32_t type, uint32_t instance,
                           size_t *size)
{
    size_t at = 32;

    while (len - at >= 56) {
        *size = (size_t)test_le(bytes + at + 16, 8);
        if (test_le(bytes + at, 4) == type && test_le(bytes + at + 4, 4) == instance)
            return bytes + at + 56;
        at += 56 + *size;
    }
    fail_msg("no section %#x", type);
    return NULL;
}

/* The runs of a diff that nobody wrote, sealed as if somebody had. */
static void forged_runs(void **state)
{
    uint8_t *bytes, *copy, *diff;
    uint32_t runs, path;
    size_t len, size;
    uint64_t random = asked("TENON_SEED", 3);

    (void)state;
    NEED_KVM();
    ready("dirty 20", true);
    write_dir(0, false);
    work(&vm, 'a');
    write_dir(1, true);
    tn_vm_close(&vm);
    bytes = slurp(in(1, "state"), &len);
    copy = malloc(len);
    assert_non_null(copy);
    memcpy(copy, bytes, len);
    diff = section_in(copy, len, TN_VM_SEC_DIFF, 0, &size);
    path = (uint32_t)test_le(diff, 4);
    runs = (uint32_t)test_le(diff + 4 + path, 4);
    assert_true(runs > 1 && size == 8 + path + runs * 16);
    for (int i = 0; i < 300; i++) {
        uint8_t *run = diff + 8 + path + test_random(&random) % runs * 16;
        uint64_t value = test_random(&random) % 2 ? PAGES_OF_RAM - test_random(&random) % 3
                                                  : 1ull << test_random(&random) % 64;
        int r;

        memcpy(copy, bytes, len);
        switch (i % 6) {
        case 0:
            tn_put_(run, 8, value);
            break;
        case 1:
            tn_put_(run + 8, 8, value);
            break;
        case 2:
            tn_put_(run, 8, UINT64_MAX - value);
            break;
        case 3:
            tn_put_(diff + 4 + path, 4, value); /* how many */
            break;
        case 4:
            tn_put_(diff, 4, value); /* bytes of the path */
            break;
        default:
            tn_put_(run + 8, 8, 0);
            break;
        }
        if (memcmp(copy, bytes, len) == 0)
            continue;
        forge_seal(copy, len, NULL, true);
        spill(in(1, "state"), copy, len);
        r = try_open(d(1), NULL, false);
        if (r >= 0) /* other pages where these were: the digests of memory tell */
            fail_msg("edit %d: accepted", i);
        assert_non_null(image.fault.file);
    }
    /* The last one as long as before, but across the end of memory. */
    memcpy(copy, bytes, len);
    {
        uint8_t *run = diff + 8 + path + (runs - 1) * 16;

        for (uint64_t over = 1; over <= test_le(run + 8, 8); over++) {
            tn_put_(run, 8, PAGES_OF_RAM - test_le(run + 8, 8) + over);
            forge_seal(copy, len, NULL, true);
            spill(in(1, "state"), copy, len);
            refused(d(1), TN_ERANGE, "state", 0);
        }
    }
    /* Where it says that its parent is: nowhere, a name without end, itself. */
    memcpy(copy, bytes, len);
    diff[4] = 0;
    forge_seal(copy, len, NULL, true);
    spill(in(1, "state"), copy, len);
    assert_true(try_open(d(1), NULL, false) < 0);
    memcpy(copy, bytes, len);
    diff[4 + path - 1] = '1'; /* .../d1 */
    forge_seal(copy, len, NULL, true);
    spill(in(1, "state"), copy, len);
    refused(d(1), TN_EPROTO, "state", 1);
    spill(in(1, "state"), bytes, len);
    assert_int_equal(try_open(d(1), NULL, false), 0);
    free(copy);
    free(bytes);
}

static void overlay_of_others(void **state)
{
    struct tn_vm_disk_cfg disk;
    struct tn_vm_cfg cfg;
    uint64_t size;
    uint8_t byte;
    int fd;

    (void)state;
    NEED_KVM();
    memset(&disk, 0, sizeof(disk));
    disk.path = file_of("base", 65536, 1);
    disk.overlay = name_of("over");
    describe(&cfg, &con, "io", 1);
    cfg.kernel = kernel;
    cfg.kernel_len = kernel_len;
    cfg.disk = &disk;
    cfg.disks = 1;
    assert_int_equal(tn_vm_init(&vm, &kvm, &loop, &cfg), 0);
    assert_int_equal(tn_vm_start(&vm), 0);
    hear(&vm, &loop, &con, 0, "io\n.");
    assert_int_equal(tn_vm_pause(&vm), 0);
    assert_int_equal(tn_vm_image_take(&image, &vm, NULL), TN_EINVAL); /* where to? */
    assert_int_equal(tn_vm_image_take(&image, &vm, name_of("not/there")), TN_ESYS);
    assert_int_equal(tn_vm_state_read(&vm), TN_VM_PAUSED);
    assert_int_equal(vm.ram.how, TN_HOSTMEM_SHARED); /* as before */
    write_dir(0, false);
    assert_int_equal(try_open(d(0), NULL, false), 0);
    tn_vm_image_close(&image);
    no_such_file(0, "disk0.overlay", "disk");
    size = size_of(in(0, "disk0.overlay"));
    fd = open(in(0, "disk0.overlay"), O_RDWR | O_CLOEXEC);
    for (uint64_t at = 0; at < size; at += size / 61 + 1) {
        assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
        byte ^= 0x10;
        assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
        refused(d(0), TN_EPROTO, "disk", 0);
        assert_int_equal(image.fault.at, 0);
        byte ^= 0x10;
        assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
    }
    assert_int_equal(ftruncate(fd, (off_t)size + 1), 0);
    refused(d(0), TN_EFORMAT, "disk", 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    assert_int_equal(try_open(d(0), NULL, false), 0); /* zeroes where holes were are the same */
    tn_vm_image_close(&image);
    assert_int_equal(ftruncate(fd, (off_t)size - 1), 0);
    refused(d(0), TN_ETRUNC, "disk", 0);
    close(fd);
    /* The machine has not noticed anything. */
    assert_int_equal(tn_vm_resume(&vm), 0);
    con_type(&con, "x");
    assert_int_equal(finish(&vm, &loop, &con), TN_VM_POWEROFF);
    assert_null(strstr(con.seen, "bad"));
    unlink(disk.overlay);
}

/* ---- networks, sockets, a balloon ---- */

/* A machine that never runs: the test is its guest. */
static void make_wired(struct wires *w, struct drivers *g)
{
    struct tn_vm_cfg cfg;

    wires_open(w);
    describe_wired(&cfg, &con, "wait", w, name_of("sock"));
    cfg.track_dirty = true;
    assert_int_equal(tn_vm_init(&vm, &kvm, &loop, &cfg), 0);
    drivers_up(g, &vm, w);
}

static void through_a_directory(void **state)
{
    const struct tn_vm_state *s = &image.state;
    struct drivers g, then, again;
    struct wires wires, own_wires;
    struct tn_vm_image_cfg from;
    struct tn_vm_clone_cfg cfg;
    int files;

    (void)state;
    NEED_KVM();
    make_wired(&wires, &g);
    write_dir(0, false);
    drivers_clone(&then, &g, &vm);
    same_memory(0);
    drivers_go_on(&g, &wires, name_of("sock")); /* the machine has not noticed anything */
    write_dir(1, true);
    same_memory(1);
    tn_vm_close(&vm);
    assert_false(listens(name_of("sock")));
    files = count_files();
    wires_close(&wires);
    memset(&from, 0, sizeof(from));
    from.dir = d(0);
    for (uint32_t how = 0; how < 3; how++) {
        from.lazy = how == TN_VM_MEMORY_LAZY;
        assert_int_equal(tn_vm_image_open(&image, &kvm, &from), 0);
        assert_int_equal(s->nets, WIRES);
        for (uint32_t i = 0; i < WIRES; i++) {
            const struct tn_vm_net_record *r = &s->net[i].record;

            assert_int_equal(r->kind, i == STREAM ? TN_VM_NET_STREAM : TN_VM_NET_PAIR);
            assert_int_equal(r->pairs, 1);
            assert_int_equal(r->mac[5], i);
            assert_int_equal(r->mtu, 1400 + i);
            assert_int_equal(r->hide, i == 1 ? TN_VIRTIO_NET_F_MRG_RXBUF : 0);
            assert_int_equal(r->tx_rate.bytes_per_s, i == 0 ? 1u << 30 : 0);
            assert_int_equal(r->rx_rate.ops_per_s, i == 0 ? 1u << 30 : 0);
            assert_string_equal(r->name, "");
        }
        assert_int_equal(s->vsock->record.cid, 42);
        assert_int_equal(s->vsock->record.conns, 100);
        assert_string_equal(s->vsock->record.path, name_of("sock"));
        assert_int_equal(s->balloon->record.size, 3 * PAGE);
        wires_open(&own_wires);
        own(&cfg, &con);
        cfg.net = own_wires.net;
        cfg.nets = WIRES;
        cfg.memory = how;
        assert_int_equal(tn_vm_restore(&other, &kvm, &loop, &image, &cfg), 0);
        assert_true(listens(name_of("sock")));
        assert_int_equal(cid_of(&other), 42);
        for (uint32_t i = 0; i < WIRES; i++) {
            const struct tn_vm_net_cfg *c = &other.devices.net[i].cfg;

            assert_int_equal(c->tx_rate.bytes_per_s, i == 0 ? 1u << 30 : 0);
            assert_int_equal(c->rx_rate.ops_per_s, i == 0 ? 1u << 30 : 0);
            assert_int_equal(c->hide, i == 1 ? TN_VIRTIO_NET_F_MRG_RXBUF : 0);
        }
        assert_int_equal(other.devices.vsock->cfg.conns, 100);
        drivers_clone(&again, &then, &other);
        drivers_go_on(&again, &own_wires, name_of("sock"));
        tn_vm_close(&other);
        drivers_free(&again);
        tn_vm_image_close(&image);
        wires_close(&own_wires);
        assert_int_equal(count_files(), files);
    }
    drivers_free(&then);
    drivers_free(&g);
}

static void fill(struct tn_vm *m, uint32_t n, int byte)
{
    uint8_t page[PAGE];

    memset(page, byte, PAGE);
    assert_int_equal(tn_mem_write(&m->mem, SPARE + n * PAGE, page, PAGE), 0);
}

/* The byte that fills a spare page. */
static int filled(struct tn_vm *m, uint32_t n)
{
    const uint8_t *p = m->ram.ptr + SPARE + n * PAGE;

    return memcmp(p, p + 1, PAGE - 1) == 0 ? *p : -1;
}

/* The guest has no use for a spare page. */
static void report(struct wd *g, uint32_t n)
{
    const struct vqd_buf buf = {SPARE + n * PAGE, PAGE, true};

    assert_true(vd_add(&g->d, 3, &buf, 1) >= 0);
    tn_mem_mark(&g->vm->mem, RINGS + AREA * g->at, BUFFER);
    vd_kick(&g->d, 3);
    (void)wd_answer(g, 3);
}

/* What was given back is other than before, and diffs have it; whatever memory the pages are of. */
static void diffs_of_what_a_balloon_took(void **state)
{
    static const int is[3][6] = {/* -1: what the clone wrote */
                                 [TN_VM_MEMORY_MAP] = {0xaa, -1, -1, -1, 0xaa, 0xaa},
                                 [TN_VM_MEMORY_LAZY] = {-1, -1, -1, -1, 0xaa, 0xaa},
                                 [TN_VM_MEMORY_COPY] = {0, 0, -1, -1, 0, 0}};
    struct wires wires, own_wires;
    struct wd *balloon, then, again;
    struct tn_vm_image_cfg from;
    struct tn_vm_clone_cfg cfg;
    struct tn_vm_image keep;
    struct drivers g;
    int at = 2;

    (void)state;
    NEED_KVM();
    make_wired(&wires, &g);
    balloon = &g.at[AT_BALLOON];
    for (uint32_t n = 10; n < 20; n++)
        fill(&vm, n, 0xaa);
    write_dir(0, false);
    inflate(balloon, 10);
    report(balloon, 11);
    assert_int_equal(filled(&vm, 10), 0);
    assert_int_equal(filled(&vm, 11), 0);
    assert_int_equal(filled(&vm, 12), 0xaa);
    write_dir(1, true);
    wd_clone(&then, balloon, &vm);
    same_memory(1);
    assert_int_equal(try_open(d(1), NULL, true), 0);
    assert_true(has_page(SPARE / PAGE + 10) && has_page(SPARE / PAGE + 11));
    assert_false(has_page(SPARE / PAGE + 12));
    tn_vm_image_close(&image);
    tn_vm_close(&vm);
    wires_close(&wires);
    memset(&from, 0, sizeof(from));
    from.dir = d(1);
    for (uint32_t how = 0; how < 3; how++) {
        int byte = 0xb0 + (int)how;

        from.lazy = how == TN_VM_MEMORY_LAZY;
        assert_int_equal(tn_vm_image_open(&keep, &kvm, &from), 0);
        wires_open(&own_wires);
        own(&cfg, &con);
        cfg.net = own_wires.net;
        cfg.nets = WIRES;
        cfg.vsock.path = name_of("own");
        cfg.memory = how;
        cfg.track_dirty = true;
        assert_int_equal(tn_vm_fork(&vm, &kvm, &loop, &keep, &cfg), 0);
        wd_clone(&again, &then, &vm);
        for (uint32_t n = 12; n < 16; n++)
            fill(&vm, n, byte);
        write_dir(at, true);
        same_memory(at++);
        inflate(&again, 12);
        report(&again, 13);
        inflate(&again, 16); /* nobody wrote it here */
        report(&again, 17);
        /* Of a view the file's bytes come back, but not where the guest counts on zeroes. */
        for (uint32_t n = 0; n < 6; n++)
            assert_int_equal(filled(&vm, 12 + n), is[how][n] >= 0 ? is[how][n] : byte);
        write_dir(at, true);
        same_memory(at++);
        if (how == TN_VM_MEMORY_MAP) { /* all of it comes back */
            assert_int_equal(tn_vm_reset(&vm), 0);
            for (uint32_t n = 10; n < 20; n++)
                assert_int_equal(filled(&vm, n), n < 12 ? 0 : 0xaa);
            write_dir(at, true);
            same_memory(at++);
        }
        vd_free(&again.d);
        tn_vm_close(&vm);
        wires_close(&own_wires);
        tn_vm_image_close(&keep);
    }
    vd_free(&then.d);
    drivers_free(&g);
}

/* ---- keys, hosts ---- */

static void keys(void **state)
{
    const struct tn_snap_key key = {(const uint8_t *)"sixteen bytes...", 16},
                             wrong = {(const uint8_t *)"sixteen bytes..!", 16},
                             weak = {(const uint8_t *)"fifteen bytes..", 15};
    struct tn_vm_snapshot_cfg to;
    struct tn_vm_image_cfg from;

    (void)state;
    NEED_KVM();
    ready("dirty 5", true);
    memset(&to, 0, sizeof(to));
    memset(&from, 0, sizeof(from));
    to.dir = d(0);
    to.key = &weak;
    assert_int_equal(tn_vm_snapshot(&vm, &to), TN_EINVAL);
    no_trace(0);
    to.sync = true;
    to.key = &key;
    assert_int_equal(tn_vm_snapshot(&vm, &to), 0);
    work(&vm, 'a');
    to.diff = true;
    to.dir = d(1);
    assert_int_equal(tn_vm_snapshot(&vm, &to), 0);
    for (int i = 0; i < 2; i++) {
        from.dir = d(i);
        from.key = NULL;
        assert_int_equal(tn_vm_image_open(&image, &kvm, &from), TN_EPROTO);
        from.key = &wrong;
        assert_int_equal(tn_vm_image_open(&image, &kvm, &from), TN_EPROTO);
        assert_string_equal(image.fault.file, "state");
        from.key = &weak;
        assert_int_equal(tn_vm_image_open(&image, &kvm, &from), TN_EINVAL);
        from.key = &key;
        assert_int_equal(tn_vm_image_open(&image, &kvm, &from), 0);
        tn_vm_image_close(&image);
        tn_vm_image_close(&image);
    }
    /* A parent without one does not help a diff that has one. */
    to.diff = false;
    to.key = NULL;
    to.dir = d(2);
    assert_int_equal(tn_vm_snapshot(&vm, &to), 0);
    to.diff = true;
    to.key = &key;
    to.dir = d(3);
    assert_int_equal(tn_vm_snapshot(&vm, &to), 0);
    from.dir = d(3);
    assert_int_equal(tn_vm_image_open(&image, &kvm, &from), TN_EPROTO);
    assert_int_equal(image.fault.depth, 1);
    from.dir = NULL;
    assert_int_equal(tn_vm_image_open(&image, &kvm, &from), TN_EINVAL);
}

/* What another, better host had. */
static void this_host_lacks(void **state)
{
    static const uint32_t kinds[] = {TN_KVM_X86_LACK_FEATURE, TN_KVM_X86_LACK_MSR,
                                     TN_KVM_X86_LACK_VENDOR};
    struct tn_vm_image_cfg from;
    uint8_t *bytes, *copy, *s;
    size_t len, size;

    (void)state;
    NEED_KVM();
    ready("dirty 5", false);
    write_dir(0, false);
    bytes = slurp(in(0, "state"), &len);
    copy = malloc(len);
    assert_non_null(copy);
    memset(&from, 0, sizeof(from));
    from.dir = d(0);
    for (unsigned i = 0; i < COUNT(kinds); i++) {
        bool done = false;

        memcpy(copy, bytes, len);
        if (kinds[i] == TN_KVM_X86_LACK_MSR) {
            s = section_in(copy, len, TN_VM_SEC_VCPU_MSRS, 0, &size);
            tn_put_(s + 4 + 12 * 3, 4, 0x12345678);
            tn_put_(s + 4 + 12 * 3 + 4, 8, 1);
        } else {
            s = section_in(copy, len, TN_VM_SEC_VCPU_CPUID, 0, &size);
            for (uint32_t n = (uint32_t)test_le(s, 4), e = 0; e < n; e++) {
                uint8_t *entry = s + 4 + 28 * e;

                if (kinds[i] == TN_KVM_X86_LACK_FEATURE && test_le(entry, 4) == 7 &&
                    test_le(entry + 4, 4) == 0) {
                    tn_put_(entry + 16, 4, UINT32_MAX);
                    done = true;
                }
                if (kinds[i] == TN_KVM_X86_LACK_VENDOR && test_le(entry, 4) == 0) {
                    tn_put_(entry + 16, 4, 0x12345678);
                    done = true;
                }
            }
            assert_true(done);
        }
        forge_seal(copy, len, NULL, true);
        spill(in(0, "state"), copy, len);
        assert_int_equal(tn_vm_image_open(&image, &kvm, &from), TN_EUNSUP);
        assert_null(image.fault.file);
        assert_int_equal(image.fault.lack.kind, kinds[i]);
        assert_int_equal(tn_vm_image_open(&image, NULL, &from), 0); /* to look at */
        {
            struct tn_vm_clone_cfg cfg;

            own(&cfg, &con);
            assert_int_equal(tn_vm_restore(&other, &kvm, &loop, &image, &cfg), TN_EINVAL);
            assert_int_equal(tn_vm_fork(&other, &kvm, &loop, &image, &cfg), TN_EINVAL);
            assert_int_equal(tn_vm_prepare(&other, &kvm, &loop, &image), TN_EINVAL);
        }
        tn_vm_image_close(&image);
    }
    free(copy);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, open_up, shut)
        CASE(nowhere_to_write),
        CASE(no_room),
        CASE(diffs_want_a_parent),
        CASE(parents),
        CASE(chains_have_an_end),
        CASE(memory_of_others),
        CASE(state_of_others),
        CASE(forged_runs),
        CASE(overlay_of_others),
        CASE(through_a_directory),
        CASE(diffs_of_what_a_balloon_took),
        CASE(keys),
        CASE(this_host_lacks),
        CASE(diffs_have_what_changed),
        CASE(diffs_of_clones),
        CASE(diffs_after_a_reset),
        CASE(no_space),
    };

    cmocka_set_test_filter(getenv("TENON_TEST"));
    return cmocka_run_group_tests_name("vm_image", tests, clone_setup, clone_teardown);
}
