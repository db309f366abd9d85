//! The marginal cost of a packet, compared with the minimum.
//!
//! Owns: the regression line through the trials. Does not know: how they were measured. Pure.

use serde::Serialize;

use super::{Series, Trial};
use crate::bots::Role;
use crate::bots::report::BotReport;

/// The regression line: CPU of the serving process by packets.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PacketCost {
    /// Slope, in microseconds of CPU per packet.
    pub micros: f64,
    /// CPU without packets, in cores.
    pub base: f64,
    /// Encryption and sending alone, measured in the same run, in microseconds per packet.
    pub floor_micros: f64,
}

impl PacketCost {
    /// The least-squares line through the trials of a series; None for fewer than two trials. Packets to viewers are
    /// counted in rooms with viewers, packets in both directions in rooms of participants.
    pub fn of(trials: &[Trial], series: Series, floor_micros: f64) -> Option<Self> {
        let points: Vec<(f64, f64)> = trials.iter().filter_map(|trial| point(trial, series)).collect();
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

    /// The cost relative to the minimum.
    pub fn ratio(&self) -> f64 {
        self.micros / self.floor_micros
    }
}

/// Packets per second of a trial of this series, and CPU of the serving process in cores.
pub(super) fn point(trial: &Trial, series: Series) -> Option<(f64, f64)> {
    let cpu = trial.cpu.filter(|_| trial.series == series && trial.report.load.seconds > 0.0)?;
    let packets = match series {
        Series::Viewers => {
            let viewers = trial.report.groups.iter().find(|group| group.role == Role::Viewer)?;
            viewers.packets as f64 / trial.report.load.seconds
        }
        Series::Participants => {
            let both = |bot: &BotReport| (bot.video.packets + bot.audio.packets + bot.sent) as f64 / bot.seconds;
            trial.report.bots.iter().filter(|bot| bot.seconds > 0.0).map(both).sum()
        }
    };
    Some((packets, cpu.edge))
}
