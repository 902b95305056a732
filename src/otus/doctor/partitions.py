"""What Slurm says about its partitions, held against what the site settings ask for. Text in, findings out."""

import math
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

from otus.doctor.report import Finding, Status
from otus.resources.requests import SMALLEST_CPU_MIN, SMALLEST_MIN
from otus.site import Site

#: The least that jobs ask for at the first of three attempts; the third asks for three times that.
_GPU_MIN, _CPU_MIN, _ATTEMPTS = max(SMALLEST_MIN.values()), SMALLEST_CPU_MIN, 3


@dataclass(frozen=True)
class Nodes:
    """Nodes of one partition that are alike: one line of `sinfo -o '%P|%G|%l|%f|%a'`. The limit is in minutes."""

    partition: str
    default: bool
    gpus: Mapping[str, int]
    limit_min: float | None
    features: frozenset[str]
    available: str


def parse_sinfo(text: str) -> list[Nodes]:
    """Return the groups of nodes in the output of `sinfo -h -o '%P|%G|%l|%f|%a'`."""
    found = []
    for row in text.splitlines():
        fields = [field.strip() for field in row.split("|")]
        if len(fields) != 5:  # such as "CLUSTER: name" of a group of clusters
            continue
        name, gres, limit, features, available = fields
        known = frozenset(f for f in re.sub(r"\([^)]*\)", "", features).split(",") if f)
        default = name.endswith("*")
        found.append(Nodes(name.removesuffix("*"), default, parse_gres(gres), parse_limit(limit), known, available))
    return found


def parse_gres(text: str) -> dict[str, int]:
    """Return GPU model -> number of `gpu:a100:2(S:0,1),gpu:v100:4`; a GPU without a model is called ''."""
    gpus: dict[str, int] = {}
    for item in re.sub(r"\([^)]*\)", "", text).split(","):
        kind, *rest = item.split(":")
        if kind != "gpu":
            continue
        count = int(rest.pop()) if rest and rest[-1].isdigit() else 1
        model = rest[0] if rest else ""
        gpus[model] = gpus.get(model, 0) + count
    return gpus


def parse_limit(text: str) -> float | None:
    """Return minutes of Slurm's `days-hours:minutes:seconds`, `minutes:seconds` and so on; None for no limit."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if match is None:  # infinite, UNLIMITED, n/a
        return None
    days, first, second, third = (int(part) if part else None for part in match.groups())
    if days is not None:
        return days * 1440 + (first or 0) * 60 + (second or 0) + (third or 0) / 60
    if third is not None:
        return (first or 0) * 60 + (second or 0) + third / 60
    return (first or 0) + (second or 0) / 60


def parse_partitions(text: str) -> dict[str, dict[str, str]]:
    """Return partition -> key -> value of the output of `scontrol -o show partition`."""
    rows = [dict(word.split("=", 1) for word in row.split() if "=" in word) for row in text.splitlines()]
    return {row["PartitionName"]: row for row in rows if "PartitionName" in row}


def judge(
    site: Site, nodes: Sequence[Nodes], details: Mapping[str, Mapping[str, str]], preempt_type: str
) -> Iterator[Finding]:
    """Yield what is right and wrong about the partitions that the site settings lead to."""
    yield _gpu_partitions(nodes)
    default = [n.partition for n in nodes if n.default][:1]
    cpu = _names(site.cpu_partition) or default
    gpu = _names(site.gpu_partition) or cpu
    known = {n.partition for n in nodes} | set(details)
    usable = True
    for key, names in (("cpu_partition", cpu), ("gpu_partition", gpu)):
        finding = _existence(key, getattr(site, key), names, nodes, known)
        usable = usable and finding.status != "missing"
        yield finding
    if not usable:
        return
    having_gpus = yield from _gpu_request(site, gpu, nodes)
    if site.gpu_constraint and having_gpus:
        yield _constraint("gpu_constraint", site.gpu_constraint, having_gpus)
    if site.cpu_constraint:
        yield _constraint("cpu_constraint", site.cpu_constraint, [n for n in nodes if n.partition in cpu])
    capped = site.longest_min or math.inf
    yield _limits("cpu_partition", cpu, nodes, details, _CPU_MIN, capped)
    yield _limits("gpu_partition", gpu, nodes, details, _GPU_MIN, capped)
    yield from _preemption(dict.fromkeys([*cpu, *gpu]), details, preempt_type)


def _names(value: str | None) -> list[str]:
    return [name for name in (value or "").split(",") if name]


def _with_gpus(nodes: Sequence[Nodes]) -> str:
    """Every partition with GPUs and their models, or nothing."""
    models: dict[str, set[str]] = {}
    for group in nodes:
        if group.gpus:
            models.setdefault(group.partition, set()).update(group.gpus)
    return ", ".join(f"{name} ({', '.join(sorted(m or 'gpu' for m in found))})" for name, found in models.items())


def _gpu_partitions(nodes: Sequence[Nodes]) -> Finding:
    if found := _with_gpus(nodes):
        return Finding("GPU partitions", "ok", found)
    remedy = "set `device: cpu` for training and prediction, or ask where the GPUs are"
    return Finding("GPU partitions", "warning", "Slurm knows no node with GPUs (gres gpu)", remedy)


def _existence(key: str, asked: str | None, names: Sequence[str], nodes: Sequence[Nodes], known: set[str]) -> Finding:
    absent = [name for name in names if name not in known]
    if absent:
        text = f"{', '.join(absent)} is not a partition of this cluster"
        return Finding(key, "missing", text, f"choose one of {', '.join(sorted(known))}")
    if not names:
        text = "none is set, and the cluster has no default partition"
        return Finding(key, "missing", text, f"choose one of {', '.join(sorted(known)) or 'those that sinfo shows'}")
    closed = [n for n in nodes if n.partition in names and n.available != "up"]
    if closed:
        text = f"{closed[0].partition} is {closed[0].available}: no job starts there"
        return Finding(key, "warning", text, "wait, ask the administrator, or choose another")
    return Finding(key, "ok", ", ".join(names) + ("" if asked else " (not set: where such jobs go without it)"))


def _gpu_request(site: Site, names: Sequence[str], nodes: Sequence[Nodes]) -> Generator[Finding, None, Sequence[Nodes]]:
    """Yield whether GPU jobs find what they ask for; return the nodes that have it."""
    there = [n for n in nodes if n.partition in names and n.gpus]
    where = ", ".join(names)
    others = _with_gpus(nodes)
    if not there:
        status: Status = "missing" if site.gpu_partition else "warning"
        remedy = f"set gpu_partition to one of: {others}" if others else "set `device: cpu` in the config"
        yield Finding("GPU request", status, f"{where} has no GPUs, and GPU jobs would go there", remedy)
        return there
    model = site.gpu_model or (site.gres.split(":")[1] if site.gres and site.gres.count(":") == 2 else None)
    fitting = [n for n in there if model is None or model in n.gpus]
    asked = f"--gres={site.gres}" if site.gres else f"--gpus={site.gpu_model + ':' if site.gpu_model else ''}1"
    if not fitting:
        models = sorted({m for n in there for m in n.gpus if m})
        remedy = f"use one of: {', '.join(models)}" if models else "leave gpu_model out: the GPUs have no model names"
        yield Finding("GPU request", "missing", f"{where} has no GPU called {model} ({asked})", remedy)
    else:
        yield Finding("GPU request", "ok", f"{asked} can be met in {where}")
    return fitting


def _constraint(key: str, expression: str, nodes: Sequence[Nodes]) -> Finding:
    """A feature that no node has is an error; of alternatives and other forms only the names are looked at."""
    wanted = set(re.findall(r"[\w.:+-]+", re.sub(r"\*\d+", "", expression)))  # rack1*2: two nodes of rack1
    everywhere = frozenset().union(*(n.features for n in nodes))
    unknown = sorted(wanted - everywhere)
    together = any(wanted <= n.features for n in nodes)
    remedy = f"features there are: {', '.join(sorted(everywhere)) or 'none'}"
    plain = set(re.sub(r"[\w.:+-]", "", expression)) <= {"&", ","}
    if plain and not together:
        why = f"no node has {', '.join(unknown)}" if unknown else "no node that could be used has all of these"
        return Finding(key, "missing", f"{expression}: {why}", remedy)
    if unknown:
        return Finding(key, "warning", f"{expression}: no node has {', '.join(unknown)}", remedy)
    return Finding(key, "ok", f"{expression} is known")


def _limits(
    key: str,
    names: Sequence[str],
    nodes: Sequence[Nodes],
    details: Mapping[str, Mapping[str, str]],
    least_min: int,
    capped_min: float,
) -> Finding:
    """Hold the longest time that the partitions allow against what jobs ask for, which longest_min caps."""
    limits = [parse_limit(details[name].get("MaxTime", "")) for name in names if name in details]
    limits = limits or [n.limit_min for n in nodes if n.partition in names]
    longest = max((math.inf if limit is None else limit for limit in limits), default=math.inf)
    name = f"time of {key.removesuffix('_partition')}"
    asked, last = min(least_min, capped_min), min(least_min * _ATTEMPTS, capped_min)
    if longest == math.inf:
        return Finding(name, "ok", f"no limit in {', '.join(names)}")
    text = f"{', '.join(names)} gives a job at most {longest:g} min; "
    remedy = f"set longest_min: {longest:g} in site.yaml (a training that is stopped goes on), or choose another {key}"
    if longest < asked:
        return Finding(name, "warning", f"{text}jobs ask for {asked:g} min or more and would never start", remedy)
    if longest < last:
        text += f"a third attempt asks for {last:g} min or more and would not start"
        return Finding(name, "warning", text, remedy)
    if capped_min <= longest:
        return Finding(name, "ok", f"{text}no job asks for more than {capped_min:g} min (longest_min)")
    return Finding(name, "ok", f"{text}jobs ask for {asked:g} min or more, at the third attempt for {last:g}")


def _preemption(
    names: Mapping[str, None], details: Mapping[str, Mapping[str, str]], preempt_type: str
) -> Iterator[Finding]:
    """Say whether jobs may be stopped in favour of others. By priority of partitions only a lower one suffers."""
    tiers = {name: int(row.get("PriorityTier", "1")) for name, row in details.items()}
    for name in names:
        mode = details.get(name, {}).get("PreemptMode", "OFF")
        highest = "partition_prio" in preempt_type and tiers.get(name, 1) >= max(tiers.values(), default=1)
        if mode.startswith("OFF") or "none" in preempt_type or highest:
            yield Finding("preemption", "ok", f"{name}: jobs are not stopped for others")
        elif "CANCEL" in mode:
            text = f"{name}: jobs may be stopped for others (PreemptMode={mode}); each costs one of two retries"
            yield Finding("preemption", "warning", text, "choose another partition, or more `retries` in the profile")
        else:
            yield Finding(
                "preemption", "ok", f"{name}: jobs may have to wait for others and go on (PreemptMode={mode})"
            )
