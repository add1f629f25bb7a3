/*
 * Times collectives of an MPI library the way `mw perf --results` times ours:
 *
 *   mpirun -np RANKS mpi_collectives allreduce|allgather|reducescatter|broadcast ...
 *
 * Prints lines `RESULT <op> <size> <microseconds> us`, the slowest rank's average over a loop that is timed as
 * a whole. The size is that of the whole vector: of allgather and reducescatter all ranks' parts together,
 * rounded down to one element each at least. A trial run tells how many iterations fit into BUDGET seconds
 * (environment, default 0.5); there is an upper bound by size, divided by ITDIV. What arrived is compared
 * afterwards.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sized {
    long size;
    int most; /* iterations */
};

static const struct sized SIZES[] = {
    {8, 10000}, {4096, 5000}, {40000, 2000}, {400000, 400}, {4000000, 60}, {64000000, 6},
};

enum op { ALLREDUCE, ALLGATHER, REDUCESCATTER, BROADCAST, OPS };

static const char *const NAMES[OPS] = {"allreduce", "allgather", "reducescatter", "broadcast"};

static int rank, nranks;

static void die(const char *what) {
    fprintf(stderr, "mpi_collectives, rank %d: %s\n", rank, what);
    MPI_Abort(MPI_COMM_WORLD, 1);
    exit(1);
}

static double number_from_env(const char *name, double otherwise) {
    const char *text = getenv(name);
    char *end;
    double number;
    if (text == NULL || *text == '\0') {
        return otherwise;
    }
    number = strtod(text, &end);
    if (*end != '\0' || !(number > 0)) {
        die(name);
    }
    return number;
}

/* Touched, so that no page is mapped while the clock runs. */
static float *vector(size_t count, float value) {
    float *out = malloc(count * sizeof *out);
    size_t i;
    if (out == NULL) {
        die("out of memory");
    }
    for (i = 0; i < count; i++) {
        out[i] = value;
    }
    return out;
}

static void once(enum op op, float *send, float *recv, int count) {
    switch (op) {
    case ALLREDUCE:
        MPI_Allreduce(send, recv, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
        break;
    case ALLGATHER:
        MPI_Allgather(send, count, MPI_FLOAT, recv, count, MPI_FLOAT, MPI_COMM_WORLD);
        break;
    case REDUCESCATTER:
        MPI_Reduce_scatter_block(send, recv, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
        break;
    default:
        MPI_Bcast(recv, count, MPI_FLOAT, 0, MPI_COMM_WORLD);
    }
}

static double loop(enum op op, float *send, float *recv, int count, int iterations) {
    double start;
    int i;
    MPI_Barrier(MPI_COMM_WORLD);
    start = MPI_Wtime();
    for (i = 0; i < iterations; i++) {
        once(op, send, recv, count);
    }
    return MPI_Wtime() - start;
}

/* Rank r contributes r + 1 everywhere. */
static float expected(enum op op, long position, int count) {
    switch (op) {
    case ALLGATHER:
        return (float)(position / count + 1);
    case BROADCAST:
        return 1.0f;
    default:
        return (float)nranks * (float)(nranks + 1) / 2.0f;
    }
}

static void measure(enum op op, struct sized sized, double budget, double divisor) {
    int parts = op == ALLGATHER || op == REDUCESCATTER ? nranks : 1;
    long elements = sized.size / (long)sizeof(float) / parts;
    int count = elements < 1 ? 1 : (int)elements;
    long sent = op == REDUCESCATTER ? (long)count * nranks : count;
    long received = op == ALLGATHER ? (long)count * nranks : count;
    float *send = vector((size_t)sent, (float)(rank + 1));
    float *recv = vector((size_t)received, op == BROADCAST && rank == 0 ? 1.0f : 0.0f);
    int most = (int)(sized.most / divisor);
    int trial, iterations;
    double fit, mine, slowest;
    long i;

    most = most < 3 ? 3 : most;
    trial = most / 10 < 1 ? 1 : most / 10 > 20 ? 20 : most / 10;
    fit = budget / (loop(op, send, recv, count, trial) / trial);
    iterations = fit < 3 ? 3 : fit > most ? most : (int)fit;
    MPI_Bcast(&iterations, 1, MPI_INT, 0, MPI_COMM_WORLD);
    mine = loop(op, send, recv, count, iterations) / iterations * 1e6;
    MPI_Reduce(&mine, &slowest, 1, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
    for (i = 0; i < received; i++) {
        if (recv[i] != expected(op, i, count)) {
            die("what arrived is wrong");
        }
    }
    if (rank == 0) {
        printf("RESULT %s %ld %.6g us\n", NAMES[op], sized.size, slowest);
        fflush(stdout);
    }
    free(send);
    free(recv);
}

int main(int argc, char **argv) {
    double budget, divisor;
    int arg, op;
    size_t i;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &nranks);
    budget = number_from_env("BUDGET", 0.5);
    divisor = number_from_env("ITDIV", 1.0);
    for (arg = 1; arg < argc; arg++) {
        for (op = 0; op < OPS && strcmp(argv[arg], NAMES[op]) != 0; op++) {
        }
        if (op == OPS) {
            die("the operations are allreduce, allgather, reducescatter and broadcast");
        }
        for (i = 0; i < sizeof SIZES / sizeof *SIZES; i++) {
            measure((enum op)op, SIZES[i], budget, divisor);
        }
    }
    MPI_Finalize();
    return 0;
}
