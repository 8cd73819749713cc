/* Any bytes as a file for --tile-windows: windows of every layer and head inside their range come out, or
 * a refusal. */
#include "pipeline/tile_windows.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int grid[3] = {3, 4, 5};
    kn_tile_windows w;
    const char *path = fuzz_file("in.json", data, size);
    kn_status st = kn_tile_windows_read(path, grid, 2, 2, &w);
    if (st == KN_OK) {
        require(w.ranges >= 1 && w.ranges <= KN_WINDOW_RANGES_MAX && w.layers == 2 && w.heads == 2);
        for (double sigma = 1; sigma >= 0; sigma -= 0.125) {
            int r = kn_tile_windows_range(&w, sigma);
            require(r >= 0 && r < w.ranges);
            double density = kn_tile_windows_density(&w, r);
            require(density > 0 && density <= 1);
            for (int l = 0; l < 2; l++)
                for (int h = 0; h < 2; h++)
                    for (int a = 0; a < 3; a++) require(kn_tile_windows_of(&w, r, l)[h][a] >= 1);
        }
        kn_tile_windows_free(&w);
    } else {
        require(!w.window);
        require_blamed(st);
    }
    return 0;
}
