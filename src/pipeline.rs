//! Pipelines: the one place that parses `pipelines/*`.
