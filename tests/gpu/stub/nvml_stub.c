/* A stand-in for the NVIDIA driver's libnvidia-ml.so.1: just the calls that our probe makes through nvidia-ml-py.
 *
 * Every call reads the file named by NVML_STUB_STATE anew. One thing a line, fields separated by tabs:
 *
 *   driver   init=CODE
 *   gpu      index=N uuid=U name=S total=B base=B util=PERCENT temp=C mw=MILLIWATTS mig=0|1 open=CODE error=CODE
 *            clocks=MASK ecc=COUNT remap_pending=0|1 remap_failed=0|1 recovery=ACTION
 *   mig      parent=N slot=N uuid=U name=S total=B base=B
 *   process  uuid=U pid=P start=TICKS bytes=B lag_ms=MS
 *   hang     call=NAME
 *   fail     call=NAME uuid=U code=CODE
 *   broken   call=NAME code=CODE
 *   xid      uuid=U code=XID
 *
 * A figure that a line leaves out is "not supported". `open` fails the call that hands out the handle, `error` every
 * call on it. A process holds its memory as long as it lives, and `lag_ms` after that, as drivers do; it is listed only
 * while it lives. `hang` blocks the calling thread for good, `broken` fails a call on whatever device. An `xid` line that
 * is added is an event for the event set that exists by then.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9, TIMEOUT = 10, GPU_IS_LOST = 15
};
enum { EVENT_XID = 8, FIELD_RECOVERY_ACTION = 230 };
enum { MAX_FILE = 65536, MAX_GONE = 256, MIG_SLOTS = 7 };

typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned int gpu, memory; } Utilization;
typedef struct { unsigned int pid; unsigned long long used; unsigned int instance, compute; } Process;
typedef struct {
    void *device;
    unsigned long long type, data;
    unsigned int gpu_instance, compute_instance;
} Event;
typedef struct {
    unsigned int id, scope;
    long long timestamp, latency;
    unsigned int type, code;
    union { double d; unsigned int u; unsigned long long ull; } value;
} Field;
typedef struct { long pid; char start[32]; double gone_at; } Gone;

static char state[MAX_FILE];
static Gone gone[MAX_GONE];
static int gone_count;
static int heard; /* xid lines that are no news any more */

static int load_state(void)
{
    const char *path = getenv("NVML_STUB_STATE");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return 0;
    state[fread(state, 1, sizeof state - 1, file)] = 0;
    fclose(file);
    return 1;
}

/* The next line of that kind after `line` (NULL: from the start), or NULL. */
static const char *next(const char *kind, const char *line)
{
    const char *at = line ? strchr(line, '\n') : state;
    for (; at; at = strchr(at, '\n')) {
        if (*at == '\n') at++;
        size_t length = strlen(kind);
        if (!strncmp(at, kind, length) && at[length] == '\t') return at;
    }
    return NULL;
}

/* Copy the value of a field of a line. 0: the line does not have it. */
static int text(const char *line, const char *key, char *out, size_t size)
{
    size_t length = strlen(key);
    for (const char *at = line; at && *at && *at != '\n'; at = strpbrk(at, "\t\n")) {
        if (*at == '\t') at++;
        if (!strncmp(at, key, length) && at[length] == '=') {
            size_t n = strcspn(at + length + 1, "\t\n");
            if (n >= size) n = size - 1;
            memcpy(out, at + length + 1, n);
            out[n] = 0;
            return 1;
        }
    }
    return 0;
}

static long long number(const char *line, const char *key, long long otherwise)
{
    char value[64];
    return text(line, key, value, sizeof value) ? atoll(value) : otherwise;
}

static int has(const char *line, const char *key, const char *wanted)
{
    char value[128];
    return text(line, key, value, sizeof value) && !strcmp(value, wanted);
}

/* Handles: 1 + index is a GPU, 1000 + parent * MIG_SLOTS + slot a MIG device. */
static const char *line_of(void *handle)
{
    long id = (long)handle;
    const char *kind = id < 1000 ? "gpu" : "mig", *line = NULL;
    while ((line = next(kind, line)))
        if (id < 1000 ? number(line, "index", -1) == id - 1
                      : number(line, "parent", -1) * MIG_SLOTS + number(line, "slot", -1) == id - 1000)
            return line;
    return NULL;
}

/* What every call does first: read the state, hang or fail if it says so. */
static int enter(const char *call, void *handle, const char **device)
{
    const char *line = NULL;
    if (!load_state()) return DRIVER_NOT_LOADED;
    while ((line = next("hang", line)))
        if (has(line, "call", call))
            for (;;) pause();
    while ((line = next("broken", line)))
        if (has(line, "call", call)) return (int)number(line, "code", NOT_SUPPORTED);
    if (!device) return SUCCESS;
    if (!(*device = line_of(handle))) return GPU_IS_LOST;
    char uuid[128] = "";
    text(*device, "uuid", uuid, sizeof uuid);
    while ((line = next("fail", line)))
        if (has(line, "call", call) && has(line, "uuid", uuid)) return (int)number(line, "code", NOT_SUPPORTED);
    return (int)number(*device, "error", SUCCESS);
}

static int figure(const char *call, void *handle, const char *key, unsigned int *out)
{
    const char *device;
    int code = enter(call, handle, &device);
    if (code) return code;
    long long value = number(device, key, -1);
    if (value < 0) return NOT_SUPPORTED;
    *out = (unsigned int)value;
    return SUCCESS;
}

static int string(const char *call, void *handle, const char *key, char *out, unsigned int size)
{
    const char *device;
    int code = enter(call, handle, &device);
    if (code) return code;
    return text(device, key, out, size) ? SUCCESS : NOT_SUPPORTED;
}

static double monotonic(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Alive: there, no zombie, and the same process (field 22 of stat, when the line names it). */
static int alive(const char *line)
{
    char path[64], stat[1024], start[32] = "";
    snprintf(path, sizeof path, "/proc/%lld/stat", number(line, "pid", 0));
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    stat[fread(stat, 1, sizeof stat - 1, file)] = 0;
    fclose(file);
    char *field = strrchr(stat, ')');
    if (!field || field[2] == 'Z' || field[2] == 'X') return 0;
    if (!text(line, "start", start, sizeof start)) return 1;
    for (int i = 3; i <= 22 && field; i++) field = strchr(field + 1, ' ');
    return field && !strncmp(field + 1, start, strlen(start));
}

/* Whether the memory of an ended process is still held: for lag_ms after its end was first seen. */
static int lags(const char *line)
{
    Gone entry = { .pid = number(line, "pid", 0), .gone_at = monotonic() };
    text(line, "start", entry.start, sizeof entry.start);
    int i = 0;
    while (i < gone_count && (gone[i].pid != entry.pid || strcmp(gone[i].start, entry.start))) i++;
    if (i == gone_count && gone_count < MAX_GONE) gone[gone_count++] = entry;
    return entry.gone_at - gone[i].gone_at < (double)number(line, "lag_ms", 0) / 1000;
}

int nvmlInitWithFlags(unsigned int flags)
{
    (void)flags;
    int code = enter("nvmlInitWithFlags", NULL, NULL);
    const char *driver = next("driver", NULL);
    return code ? code : driver ? (int)number(driver, "init", SUCCESS) : SUCCESS;
}

int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int code)
{
    static char words[64];
    snprintf(words, sizeof words, "stub error %d", code);
    return words;
}

int nvmlDeviceGetCount_v2(unsigned int *count)
{
    int code = enter("nvmlDeviceGetCount_v2", NULL, NULL);
    *count = 0;
    for (const char *line = NULL; !code && (line = next("gpu", line));) ++*count;
    return code;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **handle)
{
    int code = enter("nvmlDeviceGetHandleByIndex_v2", NULL, NULL);
    *handle = (void *)(long)(index + 1);
    const char *device = code ? NULL : line_of(*handle);
    return code ? code : device ? (int)number(device, "open", SUCCESS) : INVALID_ARGUMENT;
}

int nvmlDeviceGetUUID(void *handle, char *out, unsigned int size)
{
    return string("nvmlDeviceGetUUID", handle, "uuid", out, size);
}

int nvmlDeviceGetName(void *handle, char *out, unsigned int size)
{
    return string("nvmlDeviceGetName", handle, "name", out, size);
}

int nvmlDeviceGetUtilizationRates(void *handle, Utilization *out)
{
    out->memory = 0;
    return figure("nvmlDeviceGetUtilizationRates", handle, "util", &out->gpu);
}

int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned int *out)
{
    (void)sensor;
    return figure("nvmlDeviceGetTemperature", handle, "temp", out);
}

int nvmlDeviceGetPowerUsage(void *handle, unsigned int *out)
{
    return figure("nvmlDeviceGetPowerUsage", handle, "mw", out);
}

int nvmlDeviceGetMemoryInfo(void *handle, Memory *out)
{
    const char *device, *line = NULL;
    char uuid[128] = "";
    int code = enter("nvmlDeviceGetMemoryInfo", handle, &device);
    if (code) return code;
    if (number(device, "total", -1) < 0) return NOT_SUPPORTED;
    text(device, "uuid", uuid, sizeof uuid);
    out->total = (unsigned long long)number(device, "total", 0);
    out->used = (unsigned long long)number(device, "base", 0);
    while ((line = next("process", line)))
        if (has(line, "uuid", uuid) && (alive(line) || lags(line)))
            out->used += (unsigned long long)number(line, "bytes", 0);
    out->free = out->total - out->used;
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned int *count, Process *out)
{
    const char *device, *line = NULL;
    char uuid[128] = "";
    unsigned int room = *count, found = 0;
    int code = enter("nvmlDeviceGetComputeRunningProcesses_v3", handle, &device);
    if (code) return code;
    text(device, "uuid", uuid, sizeof uuid);
    while ((line = next("process", line))) {
        if (!has(line, "uuid", uuid) || !alive(line)) continue;
        if (found < room)
            out[found] = (Process){ .pid = (unsigned int)number(line, "pid", 0),
                                    .used = (unsigned long long)number(line, "bytes", -1) };
        found++;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

int nvmlDeviceGetMigMode(void *handle, unsigned int *current, unsigned int *pending)
{
    int code = figure("nvmlDeviceGetMigMode", handle, "mig", current);
    *pending = *current;
    return code;
}

int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned int *count)
{
    const char *device;
    *count = MIG_SLOTS;
    return enter("nvmlDeviceGetMaxMigDeviceCount", handle, &device);
}

int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned int slot, void **out)
{
    const char *device;
    int code = enter("nvmlDeviceGetMigDeviceHandleByIndex", handle, &device);
    if (code) return code;
    *out = (void *)(1000 + number(device, "index", 0) * MIG_SLOTS + slot);
    return line_of(*out) ? SUCCESS : NOT_FOUND;
}

int nvmlDeviceGetCurrentClocksEventReasons(void *handle, unsigned long long *out)
{
    unsigned int mask = 0;
    int code = figure("nvmlDeviceGetCurrentClocksEventReasons", handle, "clocks", &mask);
    *out = mask;
    return code;
}

int nvmlDeviceGetTotalEccErrors(void *handle, unsigned int kind, unsigned int counter, unsigned long long *out)
{
    unsigned int count = 0;
    (void)kind;
    (void)counter;
    int code = figure("nvmlDeviceGetTotalEccErrors", handle, "ecc", &count);
    *out = count;
    return code;
}

int nvmlDeviceGetRemappedRows(void *handle, unsigned int *corrected, unsigned int *uncorrected, unsigned int *pending,
                              unsigned int *failed)
{
    *corrected = *uncorrected = 0;
    int code = figure("nvmlDeviceGetRemappedRows", handle, "remap_pending", pending);
    return code ? code : figure("nvmlDeviceGetRemappedRows", handle, "remap_failed", failed);
}

int nvmlDeviceGetFieldValues(void *handle, int count, Field *fields)
{
    const char *device;
    int code = enter("nvmlDeviceGetFieldValues", handle, &device);
    for (int i = 0; !code && i < count; i++) {
        long long value = fields[i].id == FIELD_RECOVERY_ACTION ? number(device, "recovery", -1) : -1;
        fields[i].code = value < 0 ? NOT_SUPPORTED : SUCCESS;
        fields[i].value.u = (unsigned int)value;
    }
    return code;
}

static int xid_lines(void)
{
    int count = 0;
    for (const char *line = NULL; (line = next("xid", line));) count++;
    return count;
}

int nvmlEventSetCreate(void **set)
{
    int code = enter("nvmlEventSetCreate", NULL, NULL);
    heard = code ? 0 : xid_lines();
    *set = &heard;
    return code;
}

int nvmlDeviceRegisterEvents(void *handle, unsigned long long types, void *set)
{
    const char *device;
    (void)types;
    (void)set;
    return enter("nvmlDeviceRegisterEvents", handle, &device);
}

int nvmlEventSetWait_v2(void *set, Event *out, unsigned int timeout_ms)
{
    double deadline = monotonic() + timeout_ms / 1000.0;
    (void)set;
    for (;;) {
        const char *line = NULL, *device = NULL;
        char uuid[128] = "";
        int number_of_line = 0, code = enter("nvmlEventSetWait_v2", NULL, NULL);
        if (code) return code;
        while ((line = next("xid", line)) && number_of_line++ < heard) {}
        if (line) {
            heard++;
            text(line, "uuid", uuid, sizeof uuid);
            while ((device = next("gpu", device)) && !has(device, "uuid", uuid)) {}
            *out = (Event){ .device = device ? (void *)(long)(number(device, "index", 0) + 1) : NULL,
                            .type = EVENT_XID,
                            .data = (unsigned long long)number(line, "code", 0),
                            .gpu_instance = ~0u,
                            .compute_instance = ~0u };
            return SUCCESS;
        }
        if (monotonic() >= deadline) return TIMEOUT;
        usleep(5000);
    }
}
