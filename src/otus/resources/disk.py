"""What the outputs of a job take on disk. Light: it runs while Snakemake is parsed."""

from otus.resources.job_facts import JobFacts

#: Bytes of a weight, of the scores of a frame and class (otus.scores), of a row of another table; how often the weights
#: are in the state to resume from besides the model.
_FLOAT_BYTES, _SCORE_BYTES, _TABLE_ROW_BYTES, _WEIGHTS_SAVED = 4, 6, 100, 5

_MB = 2**20


def disk_mb(rule: str, job: JobFacts) -> float:
    """Return what the outputs of a job of the rule take on disk in MB, at most."""
    if rule in ("make_demo_corpus", "build_soundscapes", "write_chunk_files"):
        hours = job.size.labelled_hours / job.shards if rule == "write_chunk_files" else job.size.hours
        return hours * 3600 * 2 * job.size.sample_rate / _MB
    if rule == "describe_dataset" and (job.config.clip_files.audio or job.config.clip_files.spectrograms):
        return job.clips / job.folds * 2 * job.size.sample_rate / _MB
    if rule == "train_model":  # weights, and while it lasts the state to resume from
        return (job.training.members + _WEIGHTS_SAVED) * job.cost.learnt * _FLOAT_BYTES / _MB
    if rule == "predict_shard":
        hours = job.size.labelled_hours * (job.val_share + job.test_share) / job.shards
        return job.folds * job.frames(hours) * job.classes * _SCORE_BYTES / _MB
    rows = {
        "take_inventory": job.size.recordings + job.size.rows,
        "make_dataset": job.clips,
        "describe_dataset": 2 * job.clips,
        "evaluate_model": job.counts() / 2 + job.folds * job.candidates,
        "run_external": job.candidates / job.shards,
        "evaluate_external": job.counts() / 2 + job.folds * job.candidates,
        "filter_selections": job.counts() / 2 + job.candidates,
        "measure_model": job.metrics(),
        "export_model": 16 * (job.size.recordings + job.candidates),
        "merge_metrics": job.counts() + job.metrics(),
    }
    return rows.get(rule, 0.0) * _TABLE_ROW_BYTES / _MB
