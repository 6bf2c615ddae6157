"""How many threads compute and how they wait: what the machine grants, what the user said, and that every process that computes was told in time."""

import os
import subprocess
import sys

import pytest
import torch

from inference import SpeechEngine, cpu_threads
from inference.cpu_threads import SMALL_MODEL_BYTES, available, choose, cpu_quota, physical_cores, prepare, unprepared, waiting
from inference.engine import device
from inference.engine.device import use_threads
from tests.waiting import HANG_SECONDS

V2 = "29 23 0:26 {base} /sys/fs/cgroup ro,relatime shared:4 - cgroup2 cgroup rw,nsdelegate"
V1 = "32 31 0:29 {base} /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct"
VARIABLES = (cpu_threads.THREADS, *cpu_threads.COUNTS, *cpu_threads.WAITING, cpu_threads.PREPARED)


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(cpu_threads, "allowed_cpus", lambda: set(range(8)))
    monkeypatch.setattr(os, "cpu_count", lambda: 16)


def machine(root, cgroup, mounts, files):
    """A file system with these cgroups; `files` are relative to /sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    (root / "proc/self/mountinfo").write_text("23 1 0:5 / / rw - ext4 /dev/vda rw\n" + mounts + "\n")
    for name, content in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content + "\n")
    return root


@pytest.mark.parametrize(
    ("cgroup", "mounts", "files", "quota"),
    [
        ("0::/\n", V2.format(base="/"), {"cpu.max": "150000 100000"}, 1.5),
        ("0::/\n", V2.format(base="/"), {"cpu.max": "max 100000"}, None),
        ("0::/\n", V2.format(base="/"), {}, None),  # the root of a machine has no such file
        ("0::/a/b\n", V2.format(base="/"), {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, 2),
        ("0::/a/b\n", V2.format(base="/"), {"a/cpu.max": "200000 100000", "a/b/cpu.max": "50000 50000"}, 1),
        ("0::/a/b\n", V2.format(base="/"), {"a/cpu.max": "300000 100000", "a/b/cpu.max": "800000 100000"}, 3),
        ("0::/docker/x\n", V2.format(base="/docker/x"), {"cpu.max": "400000 100000"}, 4),
        ("0::/../x\n", V2.format(base="/"), {"cpu.max": "400000 100000"}, 4),
        ("4:cpu,cpuacct:/\n", V1.format(base="/"), {"cpu,cpuacct/cpu.cfs_quota_us": "250000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 2.5),
        ("4:cpu,cpuacct:/\n", V1.format(base="/"), {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, None),
        (
            "9:memory:/m\n4:cpuacct,cpu:/docker/x\n0::/\n",
            V1.format(base="/docker") + "\n" + V2.format(base="/").replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified"),
            {"cpu,cpuacct/x/cpu.cfs_quota_us": "100000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"}, 1,
        ),
        ("9:memory:/m\n", V1.format(base="/"), {"cpu,cpuacct/cpu.cfs_quota_us": "100000"}, None),
        ("", "", {}, None),
    ],
    ids=["v2", "v2 max", "v2 root", "v2 outer", "v2 inner", "v2 both", "v2 container", "v2 outside", "v1", "v1 none", "hybrid", "no cpu", "no cgroups"],
)  # fmt: skip
def test_the_least_quota_of_all_levels_counts(tmp_path, cgroup, mounts, files, quota):
    assert cpu_quota(machine(tmp_path, cgroup, mounts, files)) == quota


def test_a_mount_point_may_have_blanks_in_its_name(tmp_path):
    mounts = V2.format(base="/").replace("/sys/fs/cgroup", r"/my\040groups")
    root = machine(tmp_path, "0::/\n", mounts, {"../../../my groups/cpu.max": "100000 100000"})
    assert cpu_quota(root) == 1


@pytest.mark.parametrize(("limit", "threads"), [("max", 8), ("350000", 3), ("100000", 1), ("50000", 1), ("1600000", 8)])
def test_as_many_threads_as_the_quota_has_whole_cpus(tmp_path, limit, threads):
    choice = available(machine(tmp_path, "0::/\n", V2.format(base="/"), {"cpu.max": f"{limit} 100000"}))
    assert choice.threads == threads
    assert "may use 8 CPUs of 16" in choice.reason
    assert ("the cgroup's quota is" in choice.reason) == (threads < 8)


def test_hyperthreads_of_a_core_count_once(tmp_path):
    for cpu in range(8):
        topology = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    assert physical_cores({0, 1, 4, 5}, tmp_path) == 2
    assert available(tmp_path).threads == 4
    assert "4 physical cores" in available(tmp_path).reason


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no affinity masks")
def test_the_affinity_mask_counts():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from inference.cpu_threads import available; print(available().threads)"
    assert run(code)[0] == ["1"]


def test_a_small_model_takes_one_thread_and_says_why(tmp_path):
    assert choose(23_000_000, tmp_path).threads == 1
    assert "23 MB" in choose(23_000_000, tmp_path).reason
    assert choose(SMALL_MODEL_BYTES, tmp_path) == available(tmp_path)


@pytest.mark.parametrize(
    ("said", "threads"),
    [
        ({"FISHSERVE_THREADS": "3", "OMP_NUM_THREADS": "5"}, 3),
        ({"OMP_NUM_THREADS": "5"}, 5),
        ({"OMP_NUM_THREADS": "4,2"}, 4),
        ({"MKL_NUM_THREADS": "6"}, 6),
        ({"FISHSERVE_THREADS": "many"}, 8),
    ],
)
def test_what_the_user_said_wins_for_models_of_every_size(monkeypatch, tmp_path, said, threads):
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    prepare(tmp_path)
    assert available(tmp_path).threads == choose(1 << 40, tmp_path).threads == threads
    assert choose(1, tmp_path).threads == (threads if threads != 8 else 1)
    assert os.environ["OMP_NUM_THREADS"] == said.get("OMP_NUM_THREADS", "" if "MKL_NUM_THREADS" in said else str(threads))


@pytest.mark.parametrize("name", cpu_threads.WAITING)
def test_waiting_that_the_user_chose_stays(monkeypatch, tmp_path, name):
    monkeypatch.setenv(name, "17")
    before = {n: os.environ[n] for n in cpu_threads.WAITING}
    prepare(tmp_path)
    assert {n: os.environ[n] for n in cpu_threads.WAITING} == before
    assert waiting() == f"{name}=17, set by the user"


def test_a_child_does_not_take_what_was_prepared_for_the_users_choice(monkeypatch, tmp_path):
    prepare(tmp_path)
    assert os.environ["OMP_NUM_THREADS"] == "8"
    monkeypatch.setattr(cpu_threads, "allowed_cpus", lambda: {0, 1})  # a child may have fewer
    prepare(tmp_path)
    assert os.environ["OMP_NUM_THREADS"] == "2"
    assert waiting() == f"OMP_WAIT_POLICY=PASSIVE, GOMP_SPINCOUNT={cpu_threads.SPINS}, so that idle threads soon sleep"
    assert choose(1, tmp_path).threads == 1
    assert (
        not {"OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", cpu_threads.PREPARED}
        & unprepared({n: v for n, v in os.environ.items() if v}).keys()
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "5")  # set after it, as for a process that is started with it
    assert choose(1, tmp_path).threads == 5


class TestUseThreads:
    @pytest.fixture(autouse=True)
    def threads(self, monkeypatch):
        """torch's number, which is given back; there are 8 CPUs and torch starts with as many."""
        before = torch.get_num_threads()
        monkeypatch.setattr(device, "_threads", None)
        monkeypatch.setattr(cpu_threads, "physical_cores", lambda cpus, _=None: len(cpus))
        torch.set_num_threads(8)
        yield
        torch.set_num_threads(before)

    def test_an_engine_with_a_small_model_computes_with_one(self, golden):
        with SpeechEngine(golden, slots=1):
            assert torch.get_num_threads() == 1

    def test_the_next_model_may_take_more(self, golden, monkeypatch):
        assert use_threads(golden).threads == torch.get_num_threads() == 1
        monkeypatch.setattr(cpu_threads, "SMALL_MODEL_BYTES", 0)
        assert use_threads(golden).threads == torch.get_num_threads() == 8

    def test_torch_set_num_threads_is_respected(self, golden):
        torch.set_num_threads(3)
        assert "set_num_threads" in use_threads(golden).reason
        assert torch.get_num_threads() == 3

    def test_the_users_variable_wins_over_that(self, golden, monkeypatch):
        torch.set_num_threads(3)
        monkeypatch.setenv("FISHSERVE_THREADS", "2")
        assert use_threads(golden).threads == torch.get_num_threads() == 2


def run(code, *words, **environment):
    """Standard output's words and standard error of Python, as a user starts it."""
    clean = {n: v for n, v in os.environ.items() if n not in VARIABLES}
    done = subprocess.run(
        [sys.executable, *(["-c", code] if code else []), *words], capture_output=True, text=True, env=clean | environment, timeout=HANG_SECONDS, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


needs_libgomp = pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP, which torch uses on Linux, prints its settings")


@needs_libgomp
@pytest.mark.parametrize(
    "start",
    [
        ("-c", "from inference import SpeechEngine; SpeechEngine"),
        ("-c", "import worker.handler"),
        pytest.param(("-c", "import training.machine"), marks=pytest.mark.drill),
        ("-m", "inference.cli", "doctor"),
        pytest.param(("-m", "inference.cli", "bench", "rounding", "-o", "/dev/null/none"), marks=pytest.mark.drill),
    ],
    ids=["library", "worker", "training", "doctor", "bench"],
)
def test_torchs_own_runtime_was_told_before_it_was_loaded(start, golden_directory):
    clean = {n: v for n, v in os.environ.items() if n not in VARIABLES}
    environment = clean | {"OMP_DISPLAY_ENV": "VERBOSE", "FISHSERVE_CHECKPOINT": str(golden_directory), "FISHSERVE_THREADS": "3"}
    done = subprocess.run([sys.executable, *start], capture_output=True, text=True, env=environment, timeout=HANG_SECONDS, check=False)
    found = [line.partition("]")[2].strip() or line.strip() for line in done.stderr.splitlines()]
    assert "OMP_NUM_THREADS = '3'" in found
    assert f"GOMP_SPINCOUNT = '{cpu_threads.SPINS}'" in found


@needs_libgomp
def test_a_users_spinning_reaches_torch():
    _, errors = run("import inference.engine.engine", OMP_DISPLAY_ENV="VERBOSE", GOMP_SPINCOUNT="42", OMP_NUM_THREADS="5")
    assert "GOMP_SPINCOUNT = '42'" in errors
    assert "OMP_NUM_THREADS = '5'" in errors


def test_processes_that_do_not_compute_are_left_alone():
    assert run("import os, inference, saas.app; print('OMP_WAIT_POLICY' in os.environ)")[0] == ["False"]
