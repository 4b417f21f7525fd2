//! Datagrams: as many as go, there and back; in runs; one by one; and associations that are only held.

mod flows;
mod idle;
mod many;
mod runs;
mod wire;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use self::flows::{Carried, Echo, Flow, Sheet};
use super::pair::{Door, Pair};
use super::rows::{Figure, Goal, Plan, figure, per_process};
use crate::peers::{Method, Peer, Tools};

/// What is done with datagrams.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Load {
    /// There and back, so many in flight on each flow.
    Flat { flows: usize, window: usize, payload_bytes: usize },
    /// One way through a tunnel, in runs that the kernel cuts.
    Runs,
    /// There and back, one in flight.
    Trips,
    /// Associations that do nothing: programs at a tunnel, or with control connections at a SOCKS door.
    Idle { by_socks: bool },
    /// A few associations at work among very many.
    Many,
}

/// How long the payload of a trip is.
const TRIP_BYTES: usize = 64;

/// Measures `load` once on a fresh pair.
pub(crate) fn measure(
    load: Load,
    tools: &Tools,
    peer: Peer,
    method: Method,
    plan: Plan,
    cpu: usize,
) -> Result<Vec<Figure>> {
    let (sink, echo) = (runs::Sink::new()?, Echo::new()?);
    let door = match load {
        Load::Runs => Door::Tunnel(sink.address()?),
        Load::Idle { by_socks: false } => Door::Tunnel(echo.address()?),
        Load::Flat { .. } | Load::Trips | Load::Idle { by_socks: true } | Load::Many => Door::Datagrams,
    };
    let pair = Pair::start(tools, peer, method, door, cpu)?;
    let figures = match load {
        Load::Flat { flows, window, payload_bytes } => {
            flows::carry(&pair, &echo, flows, window, payload_bytes, plan.time)
                .map(|carried| flat(carried, flows, payload_bytes))
        }
        Load::Runs => runs::carry(&pair, &sink, plan.time).map(|carried| {
            let mut figures = vec![figure("CPU us per datagram", cpu_micros(carried), Goal::Share(0.15))];
            figures.extend(flow(carried, Goal::Open, Goal::Open));
            figures
        }),
        Load::Trips => trips(&pair, &echo, plan.time),
        Load::Idle { by_socks } => idle::idle(&pair, &echo, by_socks, plan.associations).map(|resident| {
            let labels = ["KiB per association, client", "KiB per association, server"];
            // A control connection is a session, which has a row of its own.
            per_process(resident, labels, if by_socks { Goal::Open } else { Goal::Most(1.0) })
        }),
        Load::Many => many::possible(plan.crowd).and_then(|count| {
            let searched = many::search(&pair, &echo, method, count, plan.time)?;
            Ok(vec![
                figure("CPU us, server, 50 alive", searched.among_few * 1e6, Goal::Open),
                figure("CPU us, server, many alive", searched.among_many * 1e6, Goal::Share(0.30)),
                figure("many / 50", searched.among_many / searched.among_few, Goal::Most(1.15)),
                figure("sockets held", searched.held as f64, Goal::Open),
            ])
        }),
    };
    figures.with_context(|| pair.logs())
}

fn flat(carried: Carried, flows: usize, payload_bytes: usize) -> Vec<Figure> {
    let is_crowd = flows > 4;
    let share = if payload_bytes > 1000 { 0.35 } else { 0.30 };
    let mut figures = vec![figure("CPU us per datagram", cpu_micros(carried), Goal::Share(share))];
    let times = if is_crowd { Goal::Open } else { Goal::Times(3.0) };
    let lost = if is_crowd { Goal::Most(1.0) } else { Goal::Open };
    figures.extend(flow(carried, times, lost));
    figures
}

/// What went through, and what did not.
fn flow(carried: Carried, rate: Goal, loss: Goal) -> [Figure; 2] {
    let Carried { sent, returned, delivered, wall, .. } = carried;
    let lost = sent.saturating_sub(returned) as f64 * 100.0 / sent.max(1) as f64;
    let thousands = delivered as f64 / 1e3 / wall.as_secs_f64();
    [figure("thousand datagrams/s", thousands, rate), figure("lost %", lost, loss)]
}

fn cpu_micros(carried: Carried) -> f64 {
    carried.cpu_secs.sum() * 1e6 / carried.delivered as f64
}

fn trips(pair: &Pair, echo: &Echo, time: Duration) -> Result<Vec<Figure>> {
    let mut sheet = Sheet::new(echo.address()?, TRIP_BYTES, 1);
    let flow = Flow::open(pair.proxy)?;
    let mut taken = echo.answer_during(|| {
        let mut inbox = wire::Inbox::new();
        let mut taken = Vec::with_capacity(1 << 16);
        let start = Instant::now();
        for number in 0.. {
            let sent = Instant::now();
            if sent - start > time {
                break;
            }
            flow.wire.send(sheet.number(1, number))?;
            while flow.wire.wait(flows::LOST_AFTER)? {
                flow.wire.receive(&mut inbox)?;
                let came = inbox.datagrams().map(|(_, datagram)| sheet.number_of(datagram));
                if came.collect::<Result<Vec<_>>>()?.contains(&number) {
                    taken.push(sent.elapsed());
                    break;
                }
            }
        }
        Ok(taken)
    })?;
    anyhow::ensure!(!taken.is_empty(), "nothing came back");
    taken.sort_unstable();
    let micros = |share: usize| taken[(taken.len() * share / 100).min(taken.len() - 1)].as_secs_f64() * 1e6;
    Ok(vec![figure("p50 us", micros(50), Goal::Share(1.0)), figure("p99 us", micros(99), Goal::Share(1.0))])
}
