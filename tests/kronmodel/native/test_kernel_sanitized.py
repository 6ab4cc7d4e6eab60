"""The kernel under the address and undefined-behaviour sanitizers, driven by a C program over many shapes."""

import shutil
import subprocess
from pathlib import Path

import pytest

from kronmodel.native.build import SOURCES

# Every array is exactly as large as the kernel may use; sizes, orders and numbers of threads vary.
DRIVER = r"""
#include "kernel.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned state = 1;
static int draw(int below) { state = state * 1664525u + 1013904223u; return (int)(state >> 8) % below; }
static float *values(int64_t count)
{
    float *all = malloc((size_t)count * sizeof(float) + 1);
    for (int64_t i = 0; i < count; i++) all[i] = (float)(draw(2001) - 1000) / 1000;
    return all;
}
static int all_finite(const float *all, int64_t count)
{
    for (int64_t i = 0; i < count; i++) if (!isfinite(all[i])) return 0;
    return 1;
}

int main(void)
{
    static const int sizes[] = {1, 2, 7, 13, 16, 28, 33, 40};
    for (int trial = 0; trial < 60; trial++) {
        int count = 1 + draw(3), batch = draw(6), threads = 1 + draw(4);
        kron_layer layers[3];
        kron_gradients gradients[3];
        int64_t n1 = sizes[draw(8)], n2 = sizes[draw(8)], inputs = n1 * n2;
        for (int i = 0; i < count; i++) {
            kron_layer *l = &layers[i];
            memset(l, 0, sizeof *l);
            l->n1 = n1, l->n2 = n2, l->m1 = sizes[draw(8)], l->m2 = sizes[draw(8)], l->rank = 1 + draw(4);
            l->inner = draw(4), l->outer = draw(4);
            uint8_t *right = malloc((size_t)l->rank);
            int64_t rights = 0;
            for (int k = 0; k < l->rank; k++) rights += right[k] = (uint8_t)draw(2);
            l->right = right;
            int64_t first = l->rank * l->m1 * n1, second = l->rank * l->m2 * n2;
            int64_t left_bias = (l->rank - rights) * l->m1 * n2, right_bias = rights * n1 * l->m2;
            l->first = values(first), l->second = values(second);
            int biased = draw(2);
            if (biased && left_bias) l->left_bias = values(left_bias);
            if (biased && right_bias) l->right_bias = values(right_bias);
            if (biased) l->bias = values(l->m1 * l->m2);
            gradients[i] = (kron_gradients){values(first), values(second), l->left_bias ? values(left_bias) : NULL,
                                            l->right_bias ? values(right_bias) : NULL,
                                            l->bias ? values(l->m1 * l->m2) : NULL};
            n1 = l->m1, n2 = l->m2;
        }
        int64_t outputs = n1 * n2;
        void *memory = aligned_alloc(64, (kron_packed_size(layers, count) + 63) / 64 * 64);
        kron_network *network = kron_pack(layers, count, memory);
        size_t size = kron_kept_size(layers, count, batch);
        void *kept = draw(2) ? aligned_alloc(64, (size + 63) / 64 * 64) : NULL;
        float *x = values(batch * inputs), *y = values(batch * outputs), *g = values(batch * outputs);
        float *x_gradient = draw(2) ? values(batch * inputs) : NULL;
        if (kron_forward(network, batch, x, y, kept, threads)) return 2;
        if (kron_backward(network, batch, x, g, kept, x_gradient, gradients, threads)) return 3;
        if (!all_finite(y, batch * outputs) || (x_gradient && !all_finite(x_gradient, batch * inputs))) return 4;
        free(memory), free(kept), free(x), free(y), free(g), free(x_gradient);
        for (int i = 0; i < count; i++) {
            kron_layer *l = &layers[i];
            kron_gradients *d = &gradients[i];
            if (!all_finite(d->first, l->rank * l->m1 * l->n1)) return 5;
            if (!all_finite(d->second, l->rank * l->m2 * l->n2)) return 6;
            free((void *)l->right), free((void *)l->first), free((void *)l->second);
            free((void *)l->left_bias), free((void *)l->right_bias), free((void *)l->bias);
            free(d->first), free(d->second), free(d->left_bias), free(d->right_bias), free(d->bias);
        }
    }
    puts("done");
    return 0;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_no_access_outside_of_arrays_no_leak_and_no_undefined_behaviour(tmp_path: Path) -> None:
    driver, program = tmp_path / "driver.c", tmp_path / "driver"
    driver.write_text(DRIVER)
    flags = ["-std=gnu11", "-O1", "-g", "-march=native", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = ["cc", *flags, "-I", str(SOURCES), str(driver), str(SOURCES / "kernel.c"), "-o", str(program)]
    built = subprocess.run([*command, "-lm", "-pthread"], capture_output=True, text=True, timeout=120, check=False)
    if "cannot find" in built.stderr:
        pytest.skip("the compiler has no sanitizers")
    assert built.returncode == 0, built.stderr
    done = subprocess.run([program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
