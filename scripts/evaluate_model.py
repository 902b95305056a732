"""Operating points, selections, matches, counts and the shapes of scores of one model, all folds."""

from otus.config import EvaluationSettings
from otus.evaluation import evaluate_model, points_in_words, read_fold, write_thresholds
from otus.joblog import job_log
from otus.tables import read_table, write_table

log = job_log(snakemake.log[0])
files, out, params = snakemake.input, snakemake.output, snakemake.params
settings = EvaluationSettings.model_validate(params.evaluation)
model = f"{snakemake.wildcards.dataset}-{snakemake.wildcards.training}"
recordings, splits = read_table(files.recordings, "recordings"), read_table(files.splits, "splits")
folds = [
    read_fold(
        fold,
        card_path=files.cards[i],
        scores_paths=files.scores[i * params.shards : (i + 1) * params.shards],
        items_paths=files.item_rows[i * params.shards : (i + 1) * params.shards],
        recordings=recordings,
        splits=splits[splits["fold"] == fold],
        decoding=settings.decoding,
    )
    for i, fold in enumerate(params.folds)
]
evaluation = evaluate_model(
    folds,
    read_table(files.annotations, "annotations"),
    classes=folds[0].classes,
    settings=settings,
    model=model,
)
for line in points_in_words(evaluation.operating_points):
    log(line)
write_table(out.selections, "selections", evaluation.selections)
write_table(out.matches, "matches", evaluation.matches)
write_table(out.counts, "counts", evaluation.counts)
write_table(out.points, "points", evaluation.points)
write_table(out.shapes, "score_shapes", evaluation.shapes)
write_thresholds(out.thresholds, model, evaluation.operating_points)
