-- What analysts ask for first, over the views of the tables. Test recordings at the IoU threshold that decides.

CREATE VIEW leaderboard AS
WITH placed AS (
    SELECT *, row_number() OVER (PARTITION BY label ORDER BY leaky, f1 DESC NULLS LAST, model, layer) AS place
    FROM metrics
    WHERE fold = 'pooled' AND split = 'test' AND selected AND iou = (SELECT any_value(iou) FROM metrics_per_class)
),
both_ways AS (
    SELECT label, iou, model, layer, other_model, other_layer, difference, difference_low, difference_high, p_value
    FROM differences WHERE measure = 'f1'
    UNION ALL
    SELECT label, iou, other_model, other_layer, model, layer, -difference, -difference_high, -difference_low, p_value
    FROM differences WHERE measure = 'f1'
)
SELECT
    placed.label, placed.place,
    placed.leaky = best.leaky AND coalesce(
        CASE
            WHEN placed.place = 1 THEN TRUE
            WHEN both_ways.difference_low IS NOT NULL
                THEN (both_ways.difference_low <= 0 AND both_ways.difference_high >= 0)
                OR coalesce(both_ways.p_value >= 0.05, FALSE)
            ELSE placed.f1_high >= best.f1_low
        END,
        FALSE
    ) AS tied_with_best,
    placed.model, placed.layer, placed.f1, placed.f1_low, placed.f1_high,
    both_ways.difference AS to_best, both_ways.difference_low AS to_best_low, both_ways.difference_high AS to_best_high,
    both_ways.p_value, placed.precision, placed.recall, placed.n_gt, placed.tp, placed.fp, placed.fn,
    placed.false_alarms_per_hour, placed.n_recordings, placed.n_groups, placed.hours, placed.leaky, placed.note
FROM placed
JOIN placed AS best ON best.label = placed.label AND best.place = 1
LEFT JOIN both_ways
    ON both_ways.label = placed.label AND both_ways.iou = placed.iou
    AND both_ways.model = placed.model AND both_ways.layer = placed.layer
    AND both_ways.other_model = best.model AND both_ways.other_layer = best.layer
ORDER BY placed.label, placed.place;

CREATE VIEW worst_recordings AS
SELECT
    counted.model, counted.layer, counted.label, counted.recording_id, recordings.path, counted."group",
    recordings.site, recordings.start_time, counted.duration_s, counted.n_gt, counted.n_pred, counted.tp,
    counted.fp, counted.fn, counted.fp + counted.fn AS errors, counted.f1, counted.leaky
FROM metrics_per_recording AS counted
LEFT JOIN recordings USING (recording_id)
WHERE counted.fold = 'pooled' AND counted.split = 'test' AND counted.label <> 'micro'
    AND counted.iou = (SELECT any_value(iou) FROM metrics_per_class)
ORDER BY errors DESC, counted.fn DESC, counted.model, counted.layer, counted.label, counted.recording_id;

CREATE VIEW false_alarms AS
SELECT
    matches.model, matches.layer, matches.fold, matches.label, matches.recording_id, recordings.path,
    recordings."group", recordings.site, matches.start_s, matches.end_s,
    try_cast(recordings.start_time AS TIMESTAMP) + to_microseconds(CAST(1e6 * matches.start_s AS BIGINT)) AS start_time,
    matches.score, selections.peak_score, selections.probability, selections.rf_probability, matches.selection_id,
    matches.leaky
FROM matches
LEFT JOIN recordings USING (recording_id)
LEFT JOIN selections
    ON selections.model = matches.model AND selections.layer = matches.layer
    AND selections.fold = matches.fold AND selections.split = matches.split
    AND selections.selection_id = matches.selection_id
WHERE matches.split = 'test' AND matches.outcome = 'false_alarm'
    AND matches.iou_threshold = (SELECT any_value(iou) FROM metrics_per_class)
ORDER BY matches.score DESC, matches.model, matches.layer, matches.selection_id;

CREATE VIEW thresholds AS
SELECT
    tested.model, tested.layer, tested.label, tested.fold, tested.part, tested.threshold,
    validated.f1 AS validation_f1, tested.f1 AS test_f1, validated.n_gt AS validation_n_gt, tested.n_gt AS test_n_gt,
    tested.leaky
FROM metrics AS tested
LEFT JOIN metrics AS validated
    ON validated.model = tested.model AND validated.layer = tested.layer AND validated.fold = tested.fold
    AND validated.label = tested.label AND validated.iou = tested.iou
    AND validated.split = 'val' AND validated.selected
WHERE tested.split = 'test' AND tested.selected AND tested.fold <> 'pooled' AND tested.label <> 'micro'
    AND tested.iou = (SELECT any_value(iou) FROM metrics_per_class)
ORDER BY tested.model, tested.layer, tested.label, tested.fold;
