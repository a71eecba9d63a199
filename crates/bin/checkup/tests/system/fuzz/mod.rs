//! Random messages to every method from every caller: nothing panics, no answer blames the service, and in the end all
//! services agree.
//!
//! Messages are built from the contract's descriptors, so a new field or method is covered at once. The seed is
//! printed; `CHECKUP_TEST_SEED` repeats a run.

mod vocabulary;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use prost::Message as _;
use prost_reflect::MethodDescriptor;
use testkit::{Answer, Checkup, Desk, Party, Random, RawMethod, Refusal, call_raw, seed};
use tokio::runtime::Runtime;
use tonic::Code;

use self::vocabulary::{Vocabulary, any_message};
use crate::launch;
use crate::methods::method_descriptors;

/// Calls per property. All of them together take about half a minute.
const CASES: u32 = 1_500;
/// The deadline of a call. It is longer than the longest wait of a consistent read.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a stream is read.
const GLANCE: Duration = Duration::from_millis(40);

/// A running process with some data, a client per role, and words that mean something to the process.
struct Target {
    runtime: Runtime,
    checkup: Checkup,
    callers: Vec<(&'static str, Party)>,
    vocabulary: Vocabulary,
}

impl Target {
    fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let (checkup, callers, vocabulary) = runtime.block_on(async {
            let checkup = launch().start().await;
            let vocabulary = Vocabulary::of(&checkup).await;
            let callers = vec![
                ("admin", checkup.admin().await),
                ("customer", checkup.customer("kim").await),
                ("auditor", checkup.auditor().await),
                ("screening", checkup.service("screening").await),
                ("marketing", checkup.service("marketing").await),
                ("public", checkup.stranger().await),
            ];
            (checkup, callers, vocabulary)
        });
        Self { runtime, checkup, callers, vocabulary }
    }

    /// The callers that try a method: mostly those who may call it.
    fn callers_of(&self, method: &MethodDescriptor) -> BoxedStrategy<usize> {
        let allowed = crate::identity::allowed(method.parent_service().full_name(), method.name());
        let invited: Vec<usize> =
            (0..self.callers.len()).filter(|index| allowed.contains(&self.callers[*index].0)).collect();
        prop_oneof![4 => select(invited), 1 => 0..self.callers.len()].boxed()
    }

    fn call(&self, caller: usize, method: &MethodDescriptor, payload: Vec<u8>) -> Answer {
        let raw = RawMethod::new(method.parent_service().full_name(), method.name());
        let deadline = if method.is_server_streaming() { GLANCE } else { DEADLINE };
        let (_, party) = &self.callers[caller];
        self.runtime.block_on(call_raw(party, &raw, Bytes::from(payload), deadline))
    }

    /// Checks at the end that the process lives, nothing panicked, and the services agree.
    fn check_afterwards(mut self) {
        assert!(self.checkup.is_alive());
        let panicked = self.checkup.stderr().find(|line| line.contains("panick").then(|| line.clone()));
        assert_eq!(panicked, None);
        self.runtime.block_on(async {
            // Claims that were taken with the service's token and have no booking are fenced like any other.
            let verified = self.checkup.run(&["verify", "--settle", "40s"]).await;
            assert_eq!(verified.code, Some(0), "{verified:#?}");
            let slot = Desk::of(&self.callers[0].1).open("after-the-storm", &[7], 1).await.remove(0);
            Desk::of(&self.callers[1].1).book("kim", &slot, "").await.expect("and bookings go on");
        });
    }
}

/// Runs a property with the suite's seed.
fn check<S: Strategy>(name: &str, cases: u32, strategy: &S, property: impl Fn(S::Value) -> Result<(), TestCaseError>)
where
    S::Value: std::fmt::Debug,
{
    let mut random: Random = seed(name);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 300, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &random.bytes()));
    match runner.run(strategy, property) {
        Ok(()) => {}
        Err(TestError::Fail(why, input)) => panic!("{why}\nby {input:?}"),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

/// Counts each kind of answer, to show that calls get past the door.
#[derive(Debug, Default)]
struct Answers(RefCell<BTreeMap<String, usize>>);

impl Answers {
    fn count(&self, answer: &Answer) {
        let kind = match answer {
            Answer::Messages(_) => "OK".to_owned(),
            Answer::Refused(status) => {
                Refusal::of(status).map_or_else(|| status.code().to_string(), |refusal| refusal.reason)
            }
        };
        *self.0.borrow_mut().entry(kind).or_default() += 1;
    }
}

/// Refuses the codes that a mesh would count against the process.
fn no_blame(answer: &Answer) -> Result<(), TestCaseError> {
    let Answer::Refused(status) = answer else { return Ok(()) };
    let blames = matches!(status.code(), Code::Internal | Code::Unknown | Code::DataLoss | Code::Unimplemented);
    prop_assert!(!blames, "{status:?}");
    Ok(())
}

#[test]
fn arbitrary_messages_are_answered_or_refused() {
    let target = Target::start();
    let methods = method_descriptors();
    let strategy = select(methods).prop_flat_map(|method| {
        let message = any_message(&method.input(), &target.vocabulary);
        (Just(method.clone()), target.callers_of(&method), message)
    });
    let answers = Answers::default();
    check("arbitrary messages", CASES, &strategy, |(method, caller, message)| {
        let answer = target.call(caller, &method, message.encode_to_vec());
        answers.count(&answer);
        no_blame(&answer)
    });
    println!("{answers:#?}");
    target.check_afterwards();
}

#[test]
fn arbitrary_bytes_are_answered_or_refused() {
    let target = Target::start();
    let methods = method_descriptors();
    let strategy = select(methods).prop_flat_map(|method| {
        let noise = proptest::collection::vec(any::<u8>(), 0..40);
        // A valid message with one changed byte or without its end gets deeper than noise.
        let damaged = (any_message(&method.input(), &target.vocabulary), any::<usize>(), 0x20..0x7f_u8, 0..8_usize)
            .prop_map(|(message, at, byte, cut)| {
                let mut bytes = message.encode_to_vec();
                let length = bytes.len();
                if let Some(changed) = bytes.get_mut(at % length.max(1)) {
                    *changed = byte;
                }
                bytes.truncate(length - cut.saturating_sub(5).min(length));
                bytes
            });
        (Just(method.clone()), target.callers_of(&method), prop_oneof![1 => noise, 9 => damaged])
    });
    let answers = Answers::default();
    check("arbitrary bytes", CASES, &strategy, |(method, caller, payload)| {
        let answer = target.call(caller, &method, payload);
        answers.count(&answer);
        no_blame(&answer)
    });
    println!("{answers:#?}");
    target.check_afterwards();
}
