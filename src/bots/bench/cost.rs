//! What one more packet to a viewer costs the server, and how that compares with what it must cost.
//!
//! Owns: the line through the trials. Does not know: how they were made. Pure.

use serde::Serialize;

use super::{Series, Trial};
use crate::bots::Role;

/// The line: CPU of the edge by packets to viewers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PacketCost {
    /// Its slope, in microseconds of CPU a packet.
    pub micros: f64,
    /// CPU without any viewers, in parts of a core.
    pub base: f64,
    /// Encrypting and sending alone, measured in the same run, in microseconds a packet.
    pub floor_micros: f64,
}

impl PacketCost {
    /// The straight line nearest to the trials with viewers; None where there are fewer than two, or none has a cost.
    pub fn of(trials: &[Trial], floor_micros: f64) -> Option<Self> {
        let points: Vec<(f64, f64)> = trials.iter().filter_map(point).collect();
        let count = points.len() as f64;
        let mean = |value: fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / count;
        let (x, y) = (mean(|(x, _)| *x), mean(|(_, y)| *y));
        let spread: f64 = points.iter().map(|(at, _)| (at - x).powi(2)).sum();
        if points.len() < 2 || spread <= 0.0 {
            return None;
        }
        let slope = points.iter().map(|(at, cpu)| (at - x) * (cpu - y)).sum::<f64>() / spread;
        Some(Self { micros: slope * 1e6, base: y - slope * x, floor_micros })
    }

    /// How many times what it must.
    pub fn ratio(&self) -> f64 {
        self.micros / self.floor_micros
    }
}

/// Packets a second that viewers got, and CPU of the edge in parts of a core.
pub(super) fn point(trial: &Trial) -> Option<(f64, f64)> {
    let viewers = trial.report.groups.iter().find(|group| group.role == Role::Viewer)?;
    let cpu = trial.cpu.filter(|_| trial.series == Series::Viewers && trial.report.load.seconds > 0.0)?;
    Some((viewers.packets as f64 / trial.report.load.seconds, cpu.edge))
}
