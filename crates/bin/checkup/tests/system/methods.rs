//! The methods of the contract, from its descriptors, so that a test that goes through all of them covers a new one.

use prost_reflect::{DescriptorPool, MethodDescriptor};

/// Every method of the contract.
pub(crate) fn method_descriptors() -> Vec<MethodDescriptor> {
    let pool = DescriptorPool::decode(contract::DESCRIPTORS).expect("the contract's descriptors");
    let services = pool.services().filter(|service| service.full_name().starts_with("checkup."));
    services.flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}

/// The paths `package.Service/Method` of all methods.
pub(crate) fn methods() -> Vec<String> {
    let path = |method: MethodDescriptor| format!("{}/{}", method.parent_service().full_name(), method.name());
    method_descriptors().into_iter().map(path).collect()
}
