
/*
 * For Test::Allocator, to be preloaded into nginx: an allocator that fails
 * certain calls of nginx, its modules and the dynamic linker; those of libraries
 * are left alone, since not all of them can stand it.  Which calls is said, also
 * while nginx runs, by a file that the environment names, see failing_t.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>


typedef struct {
    long             armed;    /* count calls, and let them fail */
    long             first;    /* the calls to fail, from 1 */
    long             last;
    long             calls;    /* counted so far */
    long             failed;   /* of these */
    long             pid;      /* of this process, if not of any */
    long             size;     /* of this size, if not of any */
    long             waits;    /* a call fails when this is 0, or after 4 s */
} failing_t;


void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t alignment, size_t size);


#define caller()  __builtin_extract_return_addr(__builtin_return_address(0))


static volatile failing_t *failing;


/* nginx may be started by a shell that is not to be disturbed */

static void __attribute__((constructor))
failing_init(void)
{
    int    fd;
    void  *p;
    char  *name;

    name = getenv("FAILING_MALLOC");

    if (name == NULL
        || strncmp(program_invocation_short_name, "nginx", 5) != 0)
    {
        return;
    }

    fd = open(name, O_RDWR);
    if (fd == -1) {
        return;
    }

    p = mmap(NULL, sizeof(failing_t), PROT_READ|PROT_WRITE, MAP_SHARED, fd, 0);

    close(fd);

    if (p != MAP_FAILED) {
        failing = p;
    }
}


static int
fails(void *caller, size_t size)
{
    int                     i;
    char                   *name;
    struct dl_find_object   object;

    if (failing == NULL
        || !failing->armed
        || (failing->pid && failing->pid != getpid())
        || (failing->size && (size_t) failing->size != size)
        || _dl_find_object(caller, &object) != 0)
    {
        return 0;
    }

    name = strrchr(object.dlfo_link_map->l_name, '/');

    if (name && strncmp(name, "/lib", 4) == 0) {
        return 0;
    }

    failing->calls++;

    if (failing->calls < failing->first || failing->calls > failing->last) {
        return 0;
    }

    failing->failed++;

    for (i = 0; failing->waits && i < 800; i++) {
        usleep(5000);
    }

    errno = ENOMEM;

    return 1;
}


void *
malloc(size_t size)
{
    return fails(caller(), size) ? NULL : __libc_malloc(size);
}


void *
calloc(size_t n, size_t size)
{
    return fails(caller(), n * size) ? NULL : __libc_calloc(n, size);
}


void *
realloc(void *p, size_t size)
{
    return fails(caller(), size) ? NULL : __libc_realloc(p, size);
}


void *
memalign(size_t alignment, size_t size)
{
    return fails(caller(), size) ? NULL : __libc_memalign(alignment, size);
}


void *
aligned_alloc(size_t alignment, size_t size)
{
    return fails(caller(), size) ? NULL : __libc_memalign(alignment, size);
}


int
posix_memalign(void **p, size_t alignment, size_t size)
{
    *p = fails(caller(), size) ? NULL : __libc_memalign(alignment, size);

    return *p ? 0 : ENOMEM;
}
