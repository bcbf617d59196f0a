-- Views over a table of probes: probes, curves, experiments, backbones, failures (and epochs: experiments along training).
-- They need three relations: source (the probes), planned (curve_key, backbone, dataset) and failure_records.
-- `python -m analysis.sql results/demo` brings all of it. In a bare DuckDB, over a finished sweep:
--
--     CREATE VIEW source AS FROM 'results/demo/probes.parquet';
--     CREATE TABLE planned (curve_key VARCHAR, backbone VARCHAR, dataset VARCHAR);
--     CREATE TABLE failure_records (curve_key VARCHAR, backbone VARCHAR, dataset VARCHAR, stage VARCHAR,
--         exception VARCHAR, message VARCHAR, traceback VARCHAR, host VARCHAR, failed_at TIMESTAMPTZ);
--     .read analysis/tables/views.sql
--
-- Which accuracy counts is a setting:  SET VARIABLE accuracy = 'heldout' | 'last' | 'paper';
--   heldout (default)  top1, at the epoch and at the peak layer that held-out images chose
--   last               top1 after the last epoch; peak layer chosen by held-out images
--   (where a curve was cross-fitted, all training images in turn choose its peak layer: crossfit_top1)
--   paper              best top1 over epochs, and peak layer chosen on the test set (optimistic)

-- columns that an older table may lack
CREATE OR REPLACE VIEW contract AS
SELECT NULL::VARCHAR AS backbone_key, NULL::INTEGER AS resolution, NULL::INTEGER AS epoch, NULL::BOOLEAN AS chosen, NULL::VARCHAR AS problem,
       NULL::DOUBLE AS top1_last, NULL::INTEGER AS n_test, NULL::DOUBLE AS backbone_test_top1,
       NULL::INTEGER AS n_train, NULL::INTEGER AS n_heldout, NULL::DOUBLE AS heldout_loss,
       NULL::DOUBLE AS crossfit_top1, NULL::DOUBLE AS crossfit_loss,
       NULL::VARCHAR AS fit_on, NULL::VARCHAR AS architecture, NULL::INTEGER AS layer_width, NULL::VARCHAR AS layer_name
WHERE false;

-- a fragment that stands under the labels of several backbones: each has it, under a key of its own
CREATE OR REPLACE VIEW named AS
SELECT coalesce(backbone_key, weights_key || '@' || coalesce(resolution::VARCHAR, '?')) AS backbone, *
FROM (FROM source UNION ALL BY NAME FROM contract);
CREATE OR REPLACE VIEW shared AS
SELECT curve_key FROM named GROUP BY curve_key HAVING count(DISTINCT backbone) > 1;

-- curves of which some layer has no cross-fit: held-out images choose all of theirs
CREATE OR REPLACE VIEW uncrossed AS
SELECT DISTINCT curve_key FROM named WHERE coalesce(chosen, true) AND NOT coalesce(isfinite(crossfit_top1), false);

-- probes: the rows of the table, and
--   backbone   what tells backbones apart: the sweep's own key; in older tables weights and input resolution
--   accuracy   what is reported, choice: what chooses the peak layer, by the rule that is set; choice_loss decides
--              between equal ones, n_choosing is the number of images behind them
-- Labels of fragments are joined before, from their plan: analysis/tables/stored.py.
CREATE OR REPLACE VIEW probes AS
SELECT CASE WHEN curve_key IN (FROM shared) THEN curve_key || '@' || backbone ELSE curve_key END AS curve_key,
       CASE coalesce(getvariable('accuracy'), 'heldout')
           WHEN 'heldout' THEN top1 WHEN 'last' THEN top1_last WHEN 'paper' THEN top1_best
           ELSE error('accuracy must be heldout, last or paper') END AS accuracy,
       CASE coalesce(getvariable('accuracy'), 'heldout') WHEN 'paper' THEN top1_best
            ELSE CASE WHEN crossed THEN crossfit_top1 ELSE heldout_top1 END END AS choice,
       CASE WHEN crossed THEN crossfit_loss ELSE heldout_loss END AS choice_loss,
       CASE WHEN getvariable('accuracy') = 'paper' THEN n_test WHEN crossed THEN n_train ELSE n_heldout END AS n_choosing,
       * EXCLUDE (curve_key, crossed)
FROM (SELECT *, curve_key NOT IN (FROM uncrossed) AS crossed FROM named);

-- of several probes of a layer the one that held-out images chose; accuracies that are not finite are null
CREATE OR REPLACE VIEW chosen_probes AS
SELECT DISTINCT curve_key, layer, problem,
       CASE WHEN isfinite(accuracy) THEN accuracy END AS accuracy,
       CASE WHEN isfinite(choice) THEN choice END AS choice,
       CASE WHEN isfinite(choice_loss) THEN choice_loss ELSE 'inf' END AS choice_loss,
       CASE WHEN isfinite(top1_best) THEN top1_best END AS best
FROM probes
WHERE coalesce(chosen, true);

-- what is the same for all probes of a curve: the columns of its first layer but for those of a layer or a probe
CREATE OR REPLACE VIEW curve_labels AS
SELECT COLUMNS(lambda c: c NOT IN (
    'layer', 'layer_name', 'layer_width', 'layer_parameters', 'position', 'is_penultimate', 'rank', 'cka_first', 'cka_last',
    'cka_first_debiased', 'cka_last_debiased', 'within_variance', 'between_variance', 'nc1', 'accuracy', 'choice',
    'choice_loss', 'crossfit_top1', 'crossfit_loss', 'crossfit_correct', 'heldout_correct', 'chosen', 'problem', 'top1', 'top1_last', 'top1_best', 'top5', 'heldout_top1', 'train_top1', 'test_loss',
    'heldout_loss', 'train_loss', 'epoch_chosen', 'epoch_best', 'top1_epochs', 'heldout_top1_epochs', 'correct'))
FROM probes
WHERE coalesce(chosen, true)
QUALIFY row_number() OVER (PARTITION BY curve_key ORDER BY layer) = 1;

-- curves: one row per backbone × dataset (ID too), and per epoch along training. Of equal peaks the one with the lowest
-- loss on the images that choose counts, then the middle one (of two the deeper); by the paper's rule the first.
CREATE OR REPLACE VIEW curve_metrics AS
WITH ranked AS (
    SELECT *, rank() OVER (PARTITION BY curve_key ORDER BY choice DESC NULLS LAST, choice_loss) AS place
    FROM chosen_probes),
peaks AS (
    SELECT curve_key,
           count(*) AS n_rows, max(layer) AS n_layers, min(layer) AS first_layer, count(DISTINCT layer) AS n_distinct,
           count(*) FILTER (accuracy IS NULL OR choice IS NULL) AS n_broken, min(problem) AS problem,
           CASE WHEN getvariable('accuracy') = 'paper' THEN arg_max(layer, (choice, -layer))
                ELSE (list(layer ORDER BY layer) FILTER (place = 1))[count(*) FILTER (place = 1) // 2 + 1]
           END AS peak_layer,
           arg_max(layer, (best, -layer)) AS paper_peak,
           arg_max(accuracy, layer) AS final_accuracy,
           arg_max(best, layer) AS paper_final, max(best) AS paper_top,
           list(accuracy ORDER BY layer) AS accuracies, list(layer ORDER BY layer) AS layers
    FROM ranked GROUP BY curve_key)
SELECT curve_key, n_layers,
       CASE WHEN n_distinct < n_rows THEN 'a layer stands in the table twice'
            WHEN n_broken > 0 THEN coalesce(problem, 'a layer has no accuracy')
            WHEN n_rows <> n_layers THEN coalesce(problem, 'layers are missing') END AS incomplete,
       peak_layer, accuracies[list_position(layers, peak_layer)] AS peak_accuracy, final_accuracy,
       100 * final_accuracy / nullif(greatest(accuracies[list_position(layers, peak_layer)], 0), 0) AS retained,
       100 * paper_final / nullif(greatest(paper_top, 0), 0) AS retained_paper,
       peak_layer < n_layers AND accuracies[list_position(layers, peak_layer)] > final_accuracy AS tunnel,
       CASE WHEN peak_layer < n_layers AND accuracies[list_position(layers, peak_layer)] > final_accuracy
            THEN peak_layer END AS tunnel_start,
       CASE WHEN peak_layer < n_layers AND accuracies[list_position(layers, peak_layer)] > final_accuracy
            THEN n_layers - peak_layer ELSE 0 END AS tunnel_length,
       accuracies, layers
FROM peaks;

CREATE OR REPLACE VIEW curves AS
SELECT * FROM curve_labels JOIN curve_metrics USING (curve_key);

-- experiments of kept checkpoints and of epochs along training: complete OOD curves beside their backbone's ID curve
CREATE OR REPLACE VIEW all_experiments AS
WITH own AS (
    SELECT backbone, epoch, final_accuracy AS id_final_accuracy, chance AS id_chance, accuracies AS id_accuracies,
           layers AS id_layers
    FROM curves WHERE is_id AND incomplete IS NULL
    QUALIFY row_number() OVER (PARTITION BY backbone, epoch ORDER BY curve_key DESC) = 1)
SELECT c.* EXCLUDE (incomplete, is_id, fit_on, accuracies, layers),
       CASE WHEN layers = id_layers AND list_min(accuracies) < list_max(accuracies)
                 AND list_min(id_accuracies) < list_max(id_accuracies)
            THEN (SELECT corr(x, y) FROM (SELECT unnest(accuracies) AS x, unnest(id_accuracies) AS y)) END AS pearson,
       (id_final_accuracy - id_chance) * (final_accuracy - chance) AS alignment,
       id_final_accuracy,
       list_position(list_transform(id_accuracies, lambda a: a >= 0.95 * id_final_accuracy), true) AS id_start_95,
       list_position(list_transform(id_accuracies, lambda a: a >= 0.98 * id_final_accuracy), true) AS id_start_98
FROM curves c LEFT JOIN own ON own.backbone = c.backbone AND own.epoch IS NOT DISTINCT FROM c.epoch
WHERE NOT c.is_id AND coalesce(c.fit_on, 'own') <> 'id' AND c.incomplete IS NULL; -- probes of the ID dataset on shifted sets stay in curves

CREATE OR REPLACE VIEW experiments AS SELECT * EXCLUDE (epoch) FROM all_experiments WHERE epoch IS NULL;
CREATE OR REPLACE VIEW epochs AS FROM all_experiments WHERE epoch IS NOT NULL;

-- backbones: means over OOD datasets, the strength of the tunnel ([H24] §3; open where fewer than 100 images chose the
-- peak layer of the median experiment), and what the backbone is
CREATE OR REPLACE VIEW backbone_labels AS
SELECT COLUMNS(lambda c: c NOT IN (
    'curve_key', 'embedding_key', 'dataset', 'is_id', 'fit_on', 'dataset_fingerprint', 'classes', 'chance', 'n_train',
    'n_heldout', 'n_test', 'n_choosing', 'skipped_images', 'epoch', 'probe_seed', 'probe_lr', 'probe_weight_decay',
    'embed_seconds', 'probe_seconds', 'embed_peak_bytes', 'probe_peak_bytes', 'host', 'device', 'finished_at'))
FROM curve_labels
WHERE epoch IS NULL
QUALIFY row_number() OVER (PARTITION BY backbone ORDER BY curve_key) = 1;

CREATE OR REPLACE VIEW backbones AS
WITH means AS (
    SELECT backbone, count(retained) AS n_datasets, avg(retained) AS retained, stddev_samp(retained) AS retained_sd,
           median(n_choosing)::DOUBLE AS n_choosing,
           CASE WHEN median(n_choosing) < 100 AND avg(retained) IS NOT NULL THEN 'open'
                WHEN avg(retained) >= 95 THEN 'negligible' WHEN avg(retained) >= 90 THEN 'weak'
                WHEN avg(retained) >= 80 THEN 'medium' WHEN avg(retained) IS NOT NULL THEN 'strong' END AS strength,
           avg(retained_paper) AS retained_paper, avg(pearson) AS pearson, avg(alignment) AS alignment,
           any_value(id_final_accuracy) AS id_final_accuracy, any_value(n_layers) AS n_layers,
           count(*) FILTER (tunnel) AS tunnels, median(tunnel_start)::DOUBLE AS tunnel_start,
           median(peak_layer)::DOUBLE AS best_layer, any_value(id_start_95) AS id_start_95,
           any_value(id_start_98) AS id_start_98
    FROM experiments GROUP BY backbone)
FROM means JOIN backbone_labels USING (backbone);

-- failures: curves that were asked for and have no complete row of probes, and why
CREATE OR REPLACE VIEW failures AS
WITH latest AS (
    SELECT * FROM failure_records QUALIFY row_number() OVER (PARTITION BY curve_key ORDER BY failed_at DESC NULLS LAST) = 1),
asked AS (
    SELECT curve_key, backbone, dataset FROM planned
    UNION ALL BY NAME SELECT curve_key, backbone, dataset FROM latest WHERE curve_key NOT IN (SELECT curve_key FROM planned))
SELECT a.curve_key, coalesce(l.backbone, a.backbone) AS backbone, coalesce(l.dataset, a.dataset) AS dataset,
       CASE WHEN l.curve_key IS NULL THEN 'missing' ELSE 'failed' END AS state, l.stage, l.exception,
       coalesce(l.message, 'not in the table: not run yet, or the record of its failure is gone') AS reason, l.host,
       l.failed_at, l.traceback
FROM asked a LEFT JOIN latest l USING (curve_key)
WHERE a.curve_key NOT IN (SELECT DISTINCT curve_key FROM source)
UNION ALL BY NAME
SELECT curve_key, backbone, dataset, 'incomplete' AS state, incomplete AS reason FROM curves WHERE incomplete IS NOT NULL;
