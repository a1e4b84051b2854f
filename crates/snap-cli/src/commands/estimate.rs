//! How long a restore will take, and what it will cost.

use std::time::Duration;

use serde_json::json;
use snap_engine::RestoreReport;
use snap_engine::estimate::{Measured, Run};

use crate::app::App;
use crate::render::{json, text};
use crate::repo::Opened;

/// What a restore will take.
pub struct Estimate {
    time: Option<Duration>,
    cost: Option<(f64, String)>,
}

impl Estimate {
    /// Of what a rehearsal counted.
    pub fn of(opened: &Opened, report: &RestoreReport) -> Self {
        let location = opened.repository.backend().location();
        let cache = opened.cache.as_ref();
        let time = cache.and_then(|cache| Measured::load(cache, &location).estimate(report));
        let price = opened.copy.price.as_ref();
        let cost =
            price.map(|price| (price.of(report.fetched_bytes, report.requests), price.currency.clone()));
        Self { time, cost }
    }

    /// For people.
    pub fn tell(&self, app: &App) {
        app.out.done(&match self.time {
            Some(time) => {
                format!("it will take about {}, by earlier restores from there", text::duration(time))
            }
            None => "how long it will take is not known: none was made from there yet".to_owned(),
        });
        if let Some((cost, currency)) = &self.cost {
            app.out.done(&format!("and cost about {cost:.2} {currency}"));
        }
    }

    /// For the summary.
    pub fn fields(&self) -> json::Object {
        json::object(json!({
            "estimated_seconds": self.time.map(|time| time.as_secs_f64()),
            "estimated_cost": self.cost.as_ref().map(|(cost, _)| cost),
            "currency": self.cost.as_ref().map(|(_, currency)| currency),
        }))
    }
}

/// Keeps what was measured, for the next estimate.
pub fn remember(opened: &Opened, run: Run) {
    let location = opened.repository.backend().location();
    if let Some(cache) = &opened.cache {
        Measured::load(cache, &location).add(run, cache, &location);
    }
}
