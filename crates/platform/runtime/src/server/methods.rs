//! What the descriptors say of each method: all the door has to know to treat calls differently.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use prost::{DecodeError, Message};
use prost_types::FileDescriptorSet;
use tokio::sync::Semaphore;

use super::record::Meters;

/// The contract, health and reflection, which grpcurl and other clients ask reflection for.
pub(super) const DESCRIPTOR_SETS: [&[u8]; 2] = [contract::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET];

/// A method that can be called.
#[derive(Debug)]
pub(super) struct Method {
    /// `package.Service/Method`: the label of metrics and the name in logs.
    pub(super) name: Arc<str>,
    /// Whether its answer is a stream, open for as long as the client likes.
    pub(super) streams: bool,
    /// Whether it is health or reflection: served to everybody at any time.
    pub(super) infrastructure: bool,
    /// The places for unary calls of its service. Each service has its own: a call that makes another one in the same
    /// process could otherwise hold the place that the other one needs.
    pub(super) places: Arc<Semaphore>,
    /// What counts its calls, once there was one.
    pub(super) meters: OnceLock<Meters>,
}

/// Every method of the descriptors, by path.
#[derive(Debug)]
pub(super) struct Methods {
    known: HashMap<String, Arc<Method>>,
    unknown: Arc<Method>,
}

impl Methods {
    /// Reads the descriptors; each service gets so many places for its unary calls.
    pub(super) fn from_descriptors(max_calls: usize) -> Result<Self, DecodeError> {
        use tonic_reflection::pb::{v1, v1alpha};
        let mut known = HashMap::new();
        for encoded in DESCRIPTOR_SETS.into_iter().chain([v1::FILE_DESCRIPTOR_SET, v1alpha::FILE_DESCRIPTOR_SET]) {
            for file in FileDescriptorSet::decode(encoded)?.file {
                for service in &file.service {
                    let places = Arc::new(Semaphore::new(max_calls));
                    for method in &service.method {
                        let name = format!("{}.{}/{}", file.package(), service.name(), method.name());
                        let entry = Method {
                            name: name.as_str().into(),
                            streams: method.server_streaming(),
                            infrastructure: file.package().starts_with("grpc."),
                            places: Arc::clone(&places),
                            meters: OnceLock::new(),
                        };
                        known.insert(format!("/{name}"), Arc::new(entry));
                    }
                }
            }
        }
        // one label for all, so that strangers cannot fill the metrics with names
        let places = Arc::new(Semaphore::new(max_calls));
        let (name, meters) = ("unknown".into(), OnceLock::new());
        let unknown = Arc::new(Method { name, streams: false, infrastructure: false, places, meters });
        Ok(Self { known, unknown })
    }

    /// The method of this path.
    pub(super) fn find(&self, path: &str) -> Arc<Method> {
        Arc::clone(self.known.get(path).unwrap_or(&self.unknown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_and_infrastructure_are_told_apart() {
        let methods = Methods::from_descriptors(1).unwrap();
        let watch = methods.find("/checkup.mypage.v1.MyPageService/WatchMyPage");
        assert!(watch.streams && !watch.infrastructure);
        let create = methods.find("/checkup.screening.v1.ScreeningService/CreateScreening");
        assert!(!create.streams && !create.infrastructure);
        let check = methods.find("/grpc.health.v1.Health/Check");
        assert!(!check.streams && check.infrastructure);
        for version in ["v1", "v1alpha"] {
            let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
            assert!(methods.find(&path).infrastructure, "{path}");
        }
        assert_eq!(&*methods.find("/evil/../path").name, "unknown");
    }
}
