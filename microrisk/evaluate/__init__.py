"""The harness that grades detectors, and the report that a run leaves behind.

grid        scores on a 250 ms wall clock        alarms      clusters, false alarms, found episodes, thresholds
metrics     PR-AUC, VUS-PR                       bootstrap   intervals over sessions
detectors   columns, baselines, the union        harness     evaluate(split, detectors) -> Result
report      one self-contained HTML page         report_data its input; report_build makes that from engine records
"""
