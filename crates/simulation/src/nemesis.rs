//! Deals the blows of a plan, and heals what they did.

use std::sync::Arc;
use std::time::Duration;

use turmoil::Sim;

use crate::commits::Fate;
use crate::host::Site;
use crate::plan::{Blow, CUSTOMERS, HOSTS, How};
use crate::road::Manners;

/// What is to be done at which time, the latest first.
pub(crate) struct Nemesis {
    site: Arc<Site>,
    due: Vec<(Duration, Act)>,
    pub(crate) dealt: usize,
}

#[derive(Debug, Clone)]
enum Act {
    Begin(Blow),
    End(Blow),
}

impl Nemesis {
    pub(crate) fn new(site: &Arc<Site>) -> Self {
        let due = site.plan.blows.iter().map(|(at, blow)| (*at, Act::Begin(blow.clone()))).collect();
        let mut nemesis = Self { site: Arc::clone(site), due, dealt: 0 };
        nemesis.sort();
        nemesis
    }

    fn sort(&mut self) {
        // stable, so that equal times keep their order
        self.due.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    }

    /// Does what is due.
    pub(crate) fn act(&mut self, sim: &mut Sim<'_>) {
        while self.due.last().is_some_and(|(at, _)| *at <= sim.elapsed()) {
            let Some((_, act)) = self.due.pop() else { return };
            match act {
                Act::Begin(blow) => {
                    self.dealt += 1;
                    if let Some(lasts) = self.begin(sim, &blow) {
                        self.due.push((sim.elapsed() + lasts, Act::End(blow)));
                        self.sort();
                    }
                }
                Act::End(blow) => {
                    self.end(sim, &blow);
                    if let Blow::Choke { host, down, .. } = blow {
                        self.due.push((sim.elapsed(), Act::Begin(Blow::Crash { host, down })));
                        self.sort();
                    }
                }
            }
        }
    }

    /// Ends everything that goes on, and begins nothing more.
    pub(crate) fn heal(&mut self, sim: &mut Sim<'_>) {
        for (_, act) in std::mem::take(&mut self.due).into_iter().rev() {
            if let Act::End(blow) = act {
                self.end(sim, &blow);
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
        let Manners { blind, discreet, hasty, .. } = self.site.plan.manners;
        self.site.broker.behave(Manners { blind, discreet, hasty, ..Manners::default() });
        self.site.trace.note("nemesis", "heals", "everything");
    }

    /// How long it lasts; none where it is over at once.
    fn begin(&self, sim: &mut Sim<'_>, blow: &Blow) -> Option<Duration> {
        let Site { broker, trace, fates, .. } = &*self.site;
        let mut outcome = String::new();
        let lasts = match blow {
            Blow::Crash { host, down } => {
                sim.crash(*host);
                Some(*down)
            }
            Blow::Link { one, others, how, lasts } => {
                for other in *others {
                    match how {
                        How::Cut => sim.partition(*one, *other),
                        How::Mute => sim.partition_oneway(*one, *other),
                        How::Deaf => sim.partition_oneway(*other, *one),
                        How::Late => sim.hold(*one, *other),
                        How::Slow(most) => sim.set_link_max_message_latency(*one, *other, Duration::from_millis(*most)),
                    }
                }
                Some(*lasts)
            }
            Blow::Cut { host, lasts } => {
                broker.set_cut(host, true);
                Some(*lasts)
            }
            Blow::BrokerDown { lasts } => {
                broker.set_down(true);
                Some(*lasts)
            }
            Blow::ForgetTail { count } => {
                outcome = format!(", {} lost", broker.forget_tail(*count));
                None
            }
            Blow::Lose { one_in } => {
                outcome = format!(", {} lost", broker.lose(*one_in));
                None
            }
            Blow::Wipe => {
                outcome = format!(", {} lost", broker.len());
                broker.wipe();
                None
            }
            Blow::Commits { hosts, one_in, lasts } => {
                fates.set(hosts, Fate::Doubtful(*one_in));
                Some(*lasts)
            }
            Blow::Storage { hosts, one_in, lasts } => {
                fates.set(hosts, Fate::Failing(*one_in));
                Some(*lasts)
            }
            Blow::Choke { host, lasts, .. } => {
                fates.set(&[host], Fate::Lost);
                Some(*lasts)
            }
            Blow::Stall { hosts, lasts } => {
                broker.stall(hosts, *lasts);
                None
            }
        };
        trace.note("nemesis", &format!("{blow:?}"), format_args!("begins{outcome}"));
        lasts
    }

    fn end(&self, sim: &mut Sim<'_>, blow: &Blow) {
        let Site { broker, trace, fates, .. } = &*self.site;
        match blow {
            Blow::Crash { host, .. } => sim.bounce(*host),
            Blow::Link { one, others, how, .. } => {
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
            Blow::Cut { host, .. } => broker.set_cut(host, false),
            Blow::BrokerDown { .. } => broker.set_down(false),
            Blow::ForgetTail { .. } | Blow::Lose { .. } | Blow::Wipe | Blow::Stall { .. } => {}
            Blow::Commits { hosts, .. } | Blow::Storage { hosts, .. } => fates.clear(hosts),
            Blow::Choke { host, .. } => fates.clear(&[host]),
        }
        trace.note("nemesis", &format!("{blow:?}"), "ends");
    }
}
