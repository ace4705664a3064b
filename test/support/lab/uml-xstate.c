/*
 * For User-Mode Linux on processors whose register state is larger than it knows (those with AMX): preloaded into its process.
 *
 * The kernel takes the state of a traced process as a whole (PTRACE_SETREGSET, NT_X86_XSTATE) and answers EFAULT to less. UML
 * before Linux 6.13 hands over 2,696 bytes, whatever the processor has, and its first process dies of it. Here the rest is
 * what the process has already.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#define LARGEST (64 * 1024)

typedef long (*ptrace_call)(int, int, void *, void *);

long ptrace(enum __ptrace_request request, ...) {
  static ptrace_call next;
  static char state[LARGEST] __attribute__((aligned(64)));
  va_list more;
  va_start(more, request);
  int pid = va_arg(more, int);
  void *address = va_arg(more, void *);
  void *data = va_arg(more, void *);
  va_end(more);
  if (!next) next = (ptrace_call)dlsym(RTLD_NEXT, "ptrace");
  if (request == PTRACE_SETREGSET && (long)address == NT_X86_XSTATE) {
    struct iovec *given = data;
    struct iovec whole = {state, sizeof state};
    if (next(PTRACE_GETREGSET, pid, address, &whole) == 0 && whole.iov_len > given->iov_len) {
      memcpy(state, given->iov_base, given->iov_len);
      return next(PTRACE_SETREGSET, pid, address, &whole);
    }
  }
  return next(request, pid, address, data);
}
