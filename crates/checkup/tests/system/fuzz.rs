//! Anything at all, to every method: never a panic, never an answer that blames the service, and everything still agrees.

use prost_reflect::DescriptorPool;

/// `package.Service/Method` of every method the contract has, beside those of health and reflection.
pub(crate) fn methods() -> Vec<String> {
    let pool = DescriptorPool::decode(contract::DESCRIPTORS).expect("the contract's descriptors");
    let services = pool.services().filter(|service| service.full_name().starts_with("checkup."));
    services
        .flat_map(|service| {
            service.methods().map(|method| format!("{}/{}", service.full_name(), method.name())).collect::<Vec<_>>()
        })
        .collect()
}
