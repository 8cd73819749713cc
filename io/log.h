/* io/log.h - messages to the person or program that runs Kinora.
 *
 * Purpose   One sink for all messages. INFO is one line per phase, DEBUG one per step, TRACE one
 *           per operation. An error is returned (io/status.h), never logged as well.
 * Threads   kn_log may be called from any thread; the sink is called under a lock.
 */
#ifndef KN_IO_LOG_H
#define KN_IO_LOG_H

#include "io/status.h"

typedef enum kn_log_level {
    KN_LOG_ERR,
    KN_LOG_WARN,
    KN_LOG_INFO,
    KN_LOG_DEBUG,
    KN_LOG_TRACE
} kn_log_level;

/* line: complete, without a trailing newline; valid during the call only. */
typedef void kn_log_fn(void *user, kn_log_level level, const char *module, const char *line);

/* Replace the sink. NULL restores the default, which writes to stderr. */
void kn_log_set_sink(kn_log_fn *fn, void *user);
/* Messages above this level are dropped before they are formatted. Default KN_LOG_INFO. */
void kn_log_set_level(kn_log_level level);
kn_log_level kn_log_get_level(void);
void kn_log(kn_log_level level, const char *module, const char *fmt, ...) KN_PRINTF(3, 4);

#endif
