//! Begins the disruptions of a plan and ends them.

use std::sync::Arc;
use std::time::Duration;

use checkup::service::Service;
use turmoil::Sim;

use crate::commits::Fate;
use crate::older;
use crate::plan::{CUSTOMERS, Disruption, HOSTS, How};
use crate::site::Site;
use crate::transport::DeliveryFaults;

/// How often it is looked whether a database may go back.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// The beginnings and ends of disruptions that are still to come, the latest first.
pub(crate) struct Nemesis {
    site: Arc<Site>,
    due: Vec<(Duration, Act)>,
    pub(crate) dealt: usize,
}

#[derive(Debug, Clone)]
enum Act {
    Begin(Disruption),
    End(Disruption),
}

impl Nemesis {
    pub(crate) fn new(site: &Arc<Site>) -> Self {
        let due = site.plan.disruptions.iter().map(|(at, disruption)| (*at, Act::Begin(disruption.clone()))).collect();
        let mut nemesis = Self { site: Arc::clone(site), due, dealt: 0 };
        nemesis.sort();
        nemesis
    }

    fn sort(&mut self) {
        // A stable sort keeps the order of equal times.
        self.due.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    }

    /// Does everything that is due.
    pub(crate) fn act(&mut self, sim: &mut Sim<'_>) {
        while self.due.last().is_some_and(|(at, _)| *at <= sim.elapsed()) {
            let Some((_, act)) = self.due.pop() else { return };
            match act {
                Act::Begin(disruption) => {
                    self.dealt += 1;
                    if let Some(lasts) = self.begin(sim, &disruption) {
                        self.due.push((sim.elapsed() + lasts, Act::End(disruption)));
                        self.sort();
                    }
                }
                Act::End(Disruption::GoBack { service, hosts, down, .. }) => self.go_back(sim, service, hosts, down),
                Act::End(disruption) => {
                    self.end(sim, &disruption);
                    if let Disruption::Choke { host, down, .. } = disruption {
                        self.due.push((sim.elapsed(), Act::Begin(Disruption::Crash { host, down })));
                        self.sort();
                    }
                }
            }
        }
    }

    /// Ends every disruption and begins no more.
    pub(crate) fn heal(&mut self, sim: &mut Sim<'_>) {
        for (_, act) in std::mem::take(&mut self.due).into_iter().rev() {
            if let Act::End(disruption) = act {
                self.end(sim, &disruption);
            }
        }
        sim.set_fail_rate(0.0);
        let customers = &CUSTOMERS[..self.site.plan.customers];
        for (index, one) in HOSTS.iter().enumerate() {
            for other in HOSTS[index + 1..].iter().chain(customers).chain(&["admin", "auditor"]) {
                sim.repair(*one, *other);
                sim.release(*one, *other);
            }
        }
        self.site.fates.clear(&HOSTS);
        self.site.broker.settle();
        self.site.broker.set_down(false);
        let DeliveryFaults { blind, discreet, hasty, .. } = self.site.plan.delivery_faults;
        self.site.broker.behave(DeliveryFaults { blind, discreet, hasty, ..DeliveryFaults::default() });
        self.site.trace.note("nemesis", "heals", "everything");
    }

    /// Puts the database of a service back to its copy, as soon as the stream has all that the service told: nobody
    /// would know the rest.
    fn go_back(&mut self, sim: &mut Sim<'_>, service: Service, hosts: &'static [&'static str], down: Duration) {
        if !older::has_told_all(&self.site, service) {
            let later = Disruption::GoBack { service, hosts, ago: Duration::ZERO, down };
            self.due.push((sim.elapsed() + RETRY_INTERVAL, Act::End(later)));
            return self.sort();
        }
        for host in hosts {
            sim.crash(*host);
            self.due.push((sim.elapsed() + down, Act::End(Disruption::Crash { host, down })));
        }
        self.sort();
        self.site.restore.put_back(service, hosts);
        self.site.trace.note("nemesis", "puts back", service);
    }

    /// Begins a disruption. Returns how long it lasts, or `None` if it is momentary.
    fn begin(&self, sim: &mut Sim<'_>, disruption: &Disruption) -> Option<Duration> {
        let Site { broker, trace, fates, .. } = &*self.site;
        let mut outcome = String::new();
        let lasts = match disruption {
            Disruption::Crash { host, down } => {
                sim.crash(*host);
                Some(*down)
            }
            Disruption::Link { one, others, how, lasts } => {
                for other in *others {
                    match how {
                        How::Cut => sim.partition(*one, *other),
                        How::Mute => sim.partition_oneway(*one, *other),
                        How::Deaf => sim.partition_oneway(*other, *one),
                        How::Late => sim.hold(*one, *other),
                        How::Slow(slowest) => {
                            sim.set_link_max_message_latency(*one, *other, Duration::from_millis(*slowest))
                        }
                    }
                }
                Some(*lasts)
            }
            Disruption::Cut { host, lasts } => {
                broker.set_cut(host, true);
                Some(*lasts)
            }
            Disruption::BrokerDown { lasts } => {
                broker.set_down(true);
                Some(*lasts)
            }
            Disruption::ForgetTail { count } => {
                outcome = format!(", {} lost", broker.forget_tail(*count));
                None
            }
            Disruption::Lose { one_in } => {
                outcome = format!(", {} lost", broker.lose(*one_in));
                None
            }
            Disruption::Wipe => {
                outcome = format!(", {} lost", broker.len());
                broker.wipe();
                None
            }
            Disruption::Commits { hosts, one_in, lasts } => {
                fates.set(hosts, Fate::Doubtful(*one_in));
                Some(*lasts)
            }
            Disruption::Storage { hosts, one_in, lasts } => {
                fates.set(hosts, Fate::Failing(*one_in));
                Some(*lasts)
            }
            Disruption::Choke { host, lasts, .. } => {
                fates.set(&[host], Fate::Lost);
                Some(*lasts)
            }
            Disruption::Stall { hosts, lasts } => {
                broker.stall(hosts, *lasts);
                None
            }
            Disruption::GoBack { service, ago, .. } => match older::keep_copy(&self.site, *service) {
                Ok(()) => Some(*ago),
                Err(error) => {
                    outcome = format!(", {error}");
                    None
                }
            },
        };
        trace.note("nemesis", &format!("{disruption:?}"), format_args!("begins{outcome}"));
        lasts
    }

    fn end(&self, sim: &mut Sim<'_>, disruption: &Disruption) {
        let Site { broker, trace, fates, .. } = &*self.site;
        match disruption {
            Disruption::Crash { host, .. } => sim.bounce(*host),
            Disruption::Link { one, others, how, .. } => {
                for other in *others {
                    match how {
                        How::Cut => sim.repair(*one, *other),
                        How::Mute => sim.repair_oneway(*one, *other),
                        How::Deaf => sim.repair_oneway(*other, *one),
                        How::Late => sim.release(*one, *other),
                        How::Slow(_) => sim.set_link_max_message_latency(*one, *other, self.site.plan.latency),
                    }
                }
            }
            Disruption::Cut { host, .. } => broker.set_cut(host, false),
            Disruption::BrokerDown { .. } => broker.set_down(false),
            Disruption::ForgetTail { .. }
            | Disruption::Lose { .. }
            | Disruption::Wipe
            | Disruption::Stall { .. }
            | Disruption::GoBack { .. } => {}
            Disruption::Commits { hosts, .. } | Disruption::Storage { hosts, .. } => fates.clear(hosts),
            Disruption::Choke { host, .. } => fates.clear(&[host]),
        }
        trace.note("nemesis", &format!("{disruption:?}"), "ends");
    }
}
