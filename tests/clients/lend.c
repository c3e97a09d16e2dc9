/* Lends rtpengine-recording the files of rtpengine's kernel module: /proc/rtpengine/... is $RTPENGINE_PROC/... for it.
   Loaded with LD_PRELOAD; a program built with or without large files and fortified calls opens by other names. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char module[] = "/proc/rtpengine/";

static int lent(const char *path, int flags, int mode)
{
	char instead[PATH_MAX];
	const char *proc = getenv("RTPENGINE_PROC");

	if (proc && !strncmp(path, module, sizeof(module) - 1)) {
		snprintf(instead, sizeof(instead), "%s/%s", proc, path + sizeof(module) - 1);
		path = instead;
	}
	return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

#define OPEN(name) \
	int name(const char *path, int flags, ...) \
	{ \
		va_list rest; \
		va_start(rest, flags); \
		int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0; \
		va_end(rest); \
		return lent(path, flags, mode); \
	}

OPEN(open)
OPEN(open64)

int __open_2(const char *path, int flags) { return lent(path, flags, 0); }
int __open64_2(const char *path, int flags) { return lent(path, flags, 0); }
