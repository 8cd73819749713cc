#include "pipeline/geometry.h"

enum { VAE_SPACE = 8, VAE_TIME = 4 }; /* Wan 2.1 VAE: 8x in space, 4x in time after the first frame */

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

kn_geometry kn_geometry_of(int64_t width_px, int64_t height_px, int64_t frames, int64_t channels_lat,
                           const int patch[3])
{
    kn_geometry g = {.out_width_px = width_px, .out_height_px = height_px, .frames = frames};
    g.width_px = round_up(width_px, VAE_SPACE * patch[2]);
    g.height_px = round_up(height_px, VAE_SPACE * patch[1]);
    g.frames_lat = (frames - 1) / VAE_TIME + 1;
    g.height_lat = g.height_px / VAE_SPACE;
    g.width_lat = g.width_px / VAE_SPACE;
    g.channels_lat = channels_lat;
    g.tokens = g.frames_lat / patch[0] * (g.height_lat / patch[1]) * (g.width_lat / patch[2]);
    return g;
}
