//! Decodes requests into typed queries, and reports every violation of a request at once.

use contract::mypage::v1::{GetMyPageRequest, ListMyPageItemsRequest, WatchMyPageRequest};
use domain::ids::CustomerId;
use domain::mypage::ResumeToken;
use domain::page::Page;
use domain::token::ConsistencyToken;
use fault::{Fault, Reason, Violations};

use crate::tables::items::KEYS;

/// A decoded GetMyPage.
#[derive(Debug)]
pub(crate) struct Get {
    pub(crate) customer: CustomerId,
    pub(crate) not_before: Option<ConsistencyToken>,
    pub(crate) show_waitlisted: bool,
}

/// A decoded ListMyPageItems.
#[derive(Debug)]
pub(crate) struct List {
    pub(crate) customer: CustomerId,
    pub(crate) page: Page,
    pub(crate) not_before: Option<ConsistencyToken>,
    pub(crate) show_waitlisted: bool,
}

/// A decoded WatchMyPage: from the beginning, or from where an earlier stream ended.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) customer: CustomerId,
    pub(crate) from: Option<ResumeToken>,
    pub(crate) show_waitlisted: bool,
}

pub(crate) fn get(request: GetMyPageRequest) -> Result<Get, Fault> {
    let GetMyPageRequest { name, min_consistency_token, show_waitlisted } = request;
    let mut violations = Violations::new();
    let customer = violations.name("name", &name, CustomerId::parse_my_page);
    let not_before = ConsistencyToken::decode(&mut violations, "min_consistency_token", &min_consistency_token);
    violations.finish_with(customer.map(|customer| Get { customer, not_before, show_waitlisted }))
}

pub(crate) fn list(request: ListMyPageItemsRequest) -> Result<List, Fault> {
    let ListMyPageItemsRequest { parent, page_size, page_token, min_consistency_token, show_waitlisted } = request;
    let mut violations = Violations::new();
    let customer = violations.name("parent", &parent, CustomerId::parse_my_page);
    let mut binding = vec!["ListMyPageItems", &parent];
    if show_waitlisted {
        // only then: tokens of the version before, which did not have the field, stay valid
        binding.push("show_waitlisted");
    }
    let page = Page::decode(&mut violations, page_size, &page_token, &binding, &KEYS);
    let not_before = ConsistencyToken::decode(&mut violations, "min_consistency_token", &min_consistency_token);
    violations.finish_with(customer.map(|customer| List { customer, page, not_before, show_waitlisted }))
}

pub(crate) fn watch(request: WatchMyPageRequest) -> Result<Watch, Fault> {
    let WatchMyPageRequest { name, resume_token, show_waitlisted } = request;
    let mut violations = Violations::new();
    let customer = violations.name("name", &name, CustomerId::parse_my_page);
    let from = customer.as_ref().and_then(|customer| ResumeToken::parse(&resume_token, customer));
    if customer.is_some() && from.is_none() && !resume_token.is_empty() {
        violations.add("resume_token", Reason::PageTokenInvalid, "must be a resume_token of this page");
    }
    violations.finish_with(customer.map(|customer| Watch { customer, from, show_waitlisted }))
}
