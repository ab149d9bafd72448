#include "report.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

struct count {
    const char *name;
    uint64_t value;
};

static void write_counts(FILE *file, const struct count *counts, size_t size) {
    for (size_t i = 0; i < size; i++) {
        fprintf(file, "  \"%s\": %llu,\n", counts[i].name, (unsigned long long)counts[i].value);
    }
}

static uint64_t open_files(void) {
    uint64_t count = 0;
    DIR *files = opendir("/proc/self/fd");
    if (files != NULL) {
        while (readdir(files) != NULL) {
            count++;
        }
        closedir(files);
    }
    return count;
}

static uint64_t resident_kib(void) {
    char line[128] = "";
    FILE *file = fopen("/proc/self/statm", "r");
    if (file != NULL) {
        if (fgets(line, sizeof line, file) == NULL) {
            line[0] = '\0';
        }
        fclose(file);
    }
    const char *resident = strchr(line, ' '); /* the second number, in pages of 4 KiB */
    return resident != NULL ? (uint64_t)strtoul(resident, NULL, 10) * 4 : 0;
}

static void write_utterances(FILE *file, const struct options *options,
                             const struct sound *sound) {
    fputs("  \"utterances\": [", file);
    for (int i = 0; i < sound->utterance_count; i++) {
        const struct sound_utterance *utterance = &sound->utterances[i];
        fprintf(file, "%s\n    {\"file\": \"%s\", \"loud_at_sample\": %lld", i > 0 ? "," : "",
                options->utterance_paths[i], (long long)utterance->loud_at);
        if (utterance->silent_at >= 0) { /* it was spoken over a reply, which stopped */
            int64_t samples = utterance->silent_at - utterance->loud_at;
            fprintf(file, ", \"interruption_ms\": %.1f", (double)samples / SOUND_PER_MS);
        }
        fputs("}", file);
    }
    fputs("\n  ]\n", file);
}

int report_write(const struct options *options, const struct la_device *device,
                 const struct sound *sound, struct network *network, int cycles) {
    const struct la_device_stats *stats = &device->stats;
    const struct la_playback *playback = &device->playback;
    const struct count counts[] = {
        {"cycles", (uint64_t)cycles},
        {"connections", stats->connections},
        {"reconnects", stats->connections > 0 ? stats->connections - 1 : 0},
        {"sessions", stats->sessions},
        {"resumed", stats->resumed},
        {"replies", stats->replies},
        {"suspicions", stats->suspicions},
        {"false_suspicions", stats->false_suspicions},
        {"pauses", stats->pauses},
        {"flushes", stats->flushes},
        {"playback_reports", stats->reports},
        {"tool_calls", stats->tool_calls},
        {"errors", stats->errors},
        {"bad_messages", stats->bad_messages},
        {"unsent", stats->unsent},
        {"mic_frames", stats->mic_frames},
        {"mic_dropped", stats->mic_dropped},
        {"mic_lost_samples", sound->mic_lost},
        {"streams", playback->stats.streams},
        {"underruns", playback->jitter.underruns},
        {"jitter_depth_ms", playback->jitter.depth_ms},
        {"jitter_max_depth_ms", playback->jitter.max_depth_ms},
        {"stale_frames", playback->stats.stale_messages},
        {"overflow_samples", playback->stats.overflow_samples},
        {"bad_counts", playback->stats.bad_counts},
        {"samples_played", playback->stats.samples_played},
        {"queue_high_water_samples", playback->ring.high_water},
        {"inbound_high_water_bytes", network_inbound_high_water(network)},
        {"outbound_high_water_bytes", network_outbound_high_water(network)},
        {"core_bytes", sizeof *device + 2 * options->config.playback_samples},
        {"resident_kib", resident_kib()},
        {"open_files", open_files()},
        {"last_stream_id", playback->last.id},
        {"last_stream_played_samples", playback->last.taken},
    };
    FILE *file = options->report_path != NULL ? fopen(options->report_path, "w") : stdout;
    if (file == NULL) {
        return -1;
    }
    fprintf(file, "{\n  \"state\": \"%s\",\n  \"session_id\": \"%s\",\n",
            la_state_name(device->fsm.state), device->session_id);
    write_counts(file, counts, sizeof counts / sizeof *counts);
    write_utterances(file, options, sound);
    fputs("}\n", file);
    int problem = ferror(file);
    if (file != stdout) {
        problem |= fclose(file);
    }
    return problem == 0 ? 0 : -1;
}
