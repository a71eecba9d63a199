//! The properties of each method, read from the descriptors, by which the door treats calls differently.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use prost::{DecodeError, Message};
use prost_types::FileDescriptorSet;

use super::ServerOptions;
use super::meters::Meters;
use super::places::Places;

/// The descriptors of the contract and of health. Clients such as grpcurl read them through reflection.
pub(super) const DESCRIPTOR_SETS: [&[u8]; 2] = [contract::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET];

/// A method that can be called.
#[derive(Debug)]
pub(super) struct Method {
    /// `package.Service/Method`: the label of metrics and the name in logs.
    pub(super) name: Arc<str>,
    /// Whether the answer is a stream, which stays open for as long as the client wants.
    pub(super) streams: bool,
    /// Whether the method belongs to health or reflection, which are served to everybody at any time.
    pub(super) infrastructure: bool,
    /// Whether the method reads a page of a list.
    pub(super) lists: bool,
    /// The places for unary calls of the method's service; `None` if they have no limit. Each service has its own,
    /// because a call that makes another call in the same process could otherwise hold the place that the other one
    /// needs.
    pub(super) places: Option<Arc<Places>>,
    /// The meters of its calls, after the first call.
    pub(super) meters: OnceLock<Meters>,
}

/// Every method of the descriptors, by path.
#[derive(Debug)]
pub(super) struct Methods {
    known: HashMap<String, Arc<Method>>,
    unknown: Arc<Method>,
}

impl Methods {
    /// Reads the descriptors. Each service gets places for unary calls, but for health and reflection: a busy process
    /// is not a dead one.
    pub(super) fn from_descriptors(options: &ServerOptions) -> Result<Self, DecodeError> {
        use tonic_reflection::pb::{v1, v1alpha};
        let places = |of: &str| Some(Arc::new(Places::new(format!("calls of {of}"), options.max_calls, options)));
        let mut known = HashMap::new();
        for encoded in DESCRIPTOR_SETS.into_iter().chain([v1::FILE_DESCRIPTOR_SET, v1alpha::FILE_DESCRIPTOR_SET]) {
            for file in FileDescriptorSet::decode(encoded)?.file {
                for service in &file.service {
                    let infrastructure = file.package().starts_with("grpc.");
                    let places = if infrastructure { None } else { places(service.name()) };
                    for method in &service.method {
                        let name = format!("{}.{}/{}", file.package(), service.name(), method.name());
                        let input = method.input_type().rsplit('.').next().unwrap_or_default();
                        let message = file.message_type.iter().find(|message| message.name() == input);
                        let lists = message
                            .is_some_and(|message| message.field.iter().any(|field| field.name() == "page_token"));
                        let entry = Method {
                            name: name.as_str().into(),
                            streams: method.server_streaming(),
                            infrastructure,
                            lists,
                            places: places.clone(),
                            meters: OnceLock::new(),
                        };
                        known.insert(format!("/{name}"), Arc::new(entry));
                    }
                }
            }
        }
        // One label for all unknown methods, so that strangers cannot fill the metrics with names.
        let (name, meters, places) = ("unknown".into(), OnceLock::new(), places("no service"));
        let unknown = Arc::new(Method { name, streams: false, infrastructure: false, lists: false, places, meters });
        Ok(Self { known, unknown })
    }

    /// The method with this path; the unknown method if there is none.
    pub(super) fn find(&self, path: &str) -> Arc<Method> {
        Arc::clone(self.known.get(path).unwrap_or(&self.unknown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_and_infrastructure_are_told_apart() {
        let methods = Methods::from_descriptors(&ServerOptions::default()).unwrap();
        let watch = methods.find("/checkup.mypage.v1.MyPageService/WatchMyPage");
        assert!(watch.streams && !watch.infrastructure);
        let create = methods.find("/checkup.screening.v1.ScreeningService/CreateScreening");
        assert!(!create.streams && !create.infrastructure && !create.lists);
        for list in ["screening.v1.ScreeningService/ListScreenings", "hospital.v1.HospitalService/SearchAvailability"] {
            assert!(methods.find(&format!("/checkup.{list}")).lists, "{list}");
        }
        let check = methods.find("/grpc.health.v1.Health/Check");
        assert!(!check.streams && check.infrastructure);
        for version in ["v1", "v1alpha"] {
            let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
            assert!(methods.find(&path).infrastructure, "{path}");
        }
        assert_eq!(&*methods.find("/evil/../path").name, "unknown");
    }
}
