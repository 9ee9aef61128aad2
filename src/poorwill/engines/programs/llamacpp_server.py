"""llama.cpp's own HTTP server, from the PyPI wheel xllamacpp, as a program: the embedded default engine.

Runs in a child process and imports nothing of poorwill. Everything comes in as arguments. Marker lines
(`poorwill-engine <phase> boot_us=<CLOCK_BOOTTIME>`) tell what llama.cpp's own log does not: when Python ran
and when the library was imported. SIGTERM ends it as it ends any process.
"""

import argparse
import ctypes
import os
import sys
import time

LOAD_MODES = ("auto", "none", "mmap", "mlock", "direct_io")


def mark(phase: str) -> None:
    """Print a marker line with the time since boot in microseconds."""
    print(
        f"poorwill-engine {phase} boot_us={time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000}",
        flush=True,
    )


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="llamacpp_server", description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--alias", default="")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--context", type=int, default=4096, help="tokens of each slot")
    parser.add_argument("--parallel", type=int, default=4, help="slots: requests batched together")
    parser.add_argument("--http-threads", type=int, default=-1, help="connections served at once; -1: few")
    parser.add_argument("--threads", type=int, default=0, help="0: all that this process may use")
    parser.add_argument("--gpu-layers", type=int, default=-1, help="-1: llama.cpp decides")
    parser.add_argument("--load-mode", choices=LOAD_MODES, default="none")
    parser.add_argument("--no-warmup", action="store_true")
    parser.add_argument("--embeddings", action="store_true", help="serve /v1/embeddings as well as text")
    parser.add_argument(
        "--prompt-cache-mib", type=int, default=256, help="prompts of idle slots kept in memory"
    )
    parser.add_argument(
        "--sleep-idle-seconds", type=int, default=-1, help="unload when idle so long; -1 never"
    )
    parser.add_argument("--load-verbosity", type=int, default=4, help="4 tells the phases of a load")
    parser.add_argument("--verbosity", type=int, default=1, help="while serving: 1 errors, 3 each request")
    return parser.parse_args(argv)


def set_verbosity(library: str, level: int) -> None:
    """Log less once loaded, so that the log does not grow with every request.

    The wheel has no call for it; the library exports llama.cpp's own (common/log.h). Where a later
    version does not, the log stays as it is.
    """
    try:
        ctypes.CDLL(library)["_Z30common_log_set_verbosity_tholdi"](level)
    except (OSError, AttributeError) as error:
        print(f"the log keeps its verbosity: {error}", flush=True)


def main(argv: list[str]) -> None:
    """Load the model, serve, and wait for the end."""
    options = arguments(argv)
    mark("imports")
    import xllamacpp

    mark("weights")
    params = xllamacpp.CommonParams()
    params.model.path = options.model
    if options.alias:
        params.model_alias = {options.alias}
    params.hostnames = [options.host]
    params.port = options.port
    params.n_parallel = options.parallel
    params.n_threads_http = options.http_threads
    params.n_ctx = options.context * options.parallel
    threads = options.threads or len(os.sched_getaffinity(0))
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.n_gpu_layers = options.gpu_layers
    params.load_mode = getattr(xllamacpp.llama_load_mode, f"LLAMA_LOAD_MODE_{options.load_mode.upper()}")
    params.warmup = not options.no_warmup
    params.embedding = options.embeddings
    if options.embeddings:
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.endpoint_metrics = True
    params.endpoint_slots = True
    params.fit_params = False  # never shrink the context silently to what memory is free
    params.cache_ram_mib = options.prompt_cache_mib
    params.sleep_idle_seconds = options.sleep_idle_seconds
    params.verbosity = options.load_verbosity
    server = xllamacpp.Server(params)
    mark("ready")
    set_verbosity(xllamacpp.xllamacpp.__file__, options.verbosity)
    print(f"listening on {server.listening_address}", flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main(sys.argv[1:])
