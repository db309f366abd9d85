//! Audio arithmetic: sum, minus-one, limiter, levels. Pure.
