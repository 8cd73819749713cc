/* pipeline/info.h - describing things to people: this build, a model folder, a file.
 *
 * Purpose   kinora info                 version, devices, codecs of this build
 *           kinora info --codecs        codecs, containers, depths, quality scales
 *           kinora info MODEL           parts, dimensions, defaults of a model folder
 *           kinora info FILE            settings stored in a video or sidecar; tensors of a
 *                                       safetensors file
 * Errors    KN_ERR_ARG, KN_ERR_IO, KN_ERR_FORMAT, KN_ERR_MODEL.
 */
#ifndef KN_PIPELINE_INFO_H
#define KN_PIPELINE_INFO_H

#include <stdio.h>

#include "io/status.h"

KN_CHECKED kn_status kn_info_print(int argc, char **argv, FILE *f);

#endif
