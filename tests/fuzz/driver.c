/* SPDX-License-Identifier: Apache-2.0
 * Runs a fuzz target over files instead of under libFuzzer, so that every compiler and variant replays the corpora:
 * replay_X FOLDER... Each input lies in memory of exactly its size, where a sanitizer sees a read behind its end. The
 * name of an input is printed before it is run, as it is the last line where one crashes. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static int fail(const char *path)
{
    fprintf(stderr, "replay: %s cannot be read\n", path);
    return -1;
}

static int replay_file(const char *path, size_t bytes)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc(bytes ? bytes : 1);
    int r = 0;
    printf("%s\n", path);
    fflush(stdout);
    if (!file || !data || fread(data, 1, bytes, file) != bytes)
        r = fail(path);
    else
        LLVMFuzzerTestOneInput(data, bytes);
    free(data);
    if (file)
        fclose(file);
    return r;
}

/* Every regular file of `folder`; how many, or -1. */
static int replay_folder(const char *folder)
{
    DIR *dir = opendir(folder);
    int count = 0, r = 0;
    if (!dir)
        return fail(folder);
    for (struct dirent *entry = readdir(dir); entry && r == 0; entry = readdir(dir)) {
        char path[4096];
        struct stat st;
        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        if (stat(path, &st) < 0 || !S_ISREG(st.st_mode))
            continue;
        r = replay_file(path, (size_t)st.st_size);
        count++;
    }
    closedir(dir);
    return r < 0 ? r : count;
}

int main(int argc, char **argv)
{
    int total = 0;
    for (int i = 1; i < argc; i++) {
        const int count = replay_folder(argv[i]);
        if (count < 0)
            return 1;
        total += count;
    }
    LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    printf("%d inputs replayed\n", total);
    return 0;
}
