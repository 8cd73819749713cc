/* pipeline/made_with.h - the settings that a file of Kinora carries, to read and to render again.
 *
 * Purpose   Videos hold them in the `comment` tag, frames and sheets in the PNG text `kinora`, sidecars as
 *           they are; a video whose container has no tags (gif, webp) is looked up in its sidecar.
 * Errors    KN_ERR_FORMAT: not made by Kinora; KN_ERR_IO.
 */
#ifndef KN_PIPELINE_MADE_WITH_H
#define KN_PIPELINE_MADE_WITH_H

#include "pipeline/options.h"

/* {"kinora": version, "job": fingerprint, "options": {...}, ...}. Free with json_decref. */
KN_CHECKED kn_status kn_made_with_read(const char *path, json_t **out);
/* Set every option of the record; source KN_FROM_CONFIG. Where it lies and what it is to be written to are
 * left out, but for the model. */
KN_CHECKED kn_status kn_made_with_apply(const char *path, kn_options *o);
/* For people: version, job, then the options that shape the result, as flags. */
KN_CHECKED kn_status kn_made_with_print(const char *path, FILE *f);

#endif
