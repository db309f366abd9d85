//! Who speaks: a state machine over levels, with hysteresis. Pure.
