//! Gauges that are read when they are asked for.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};

/// Requests in flight, their limit, and the share of it: what an autoscaler can use.
#[derive(Debug, Default)]
pub(crate) struct InFlightGauge {
    /// Requests with the component.
    pub(crate) now: Gauge,
    /// How many there may be.
    pub(crate) limit: Gauge,
}

impl Collector for InFlightGauge {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (now, limit) = (self.now.get(), self.limit.get());
        gauge(&mut encoder, "requests_in_flight", "Requests with the component", now)?;
        gauge(&mut encoder, "requests_in_flight_limit", "Requests that may be with the component at a time", limit)?;
        let share = now as f64 / limit.max(1) as f64;
        gauge(&mut encoder, "saturation_ratio", "Requests in flight divided by their limit", share)
    }
}

/// Writes a gauge with this value.
pub(crate) fn gauge<N>(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: N) -> fmt::Result
where
    N: prometheus_client::encoding::EncodeGaugeValue,
{
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}
