//! Page tokens, page sizes, and pages that are limited by bytes.

use contract::hospital::v1 as message;
use message::{CapacityRequest, ListCapacityRequestsResponse};
use proptest::prelude::*;

use super::*;

const SHAPE: &[KeyKind] = &[KeyKind::Int, KeyKind::Text];

fn page(token: &str, binding: &[&str]) -> (Page, bool) {
    let mut violations = Violations::new();
    let page = Page::decode(&mut violations, 0, token, binding, SHAPE);
    (page, violations.is_empty())
}

#[test]
fn a_token_continues_only_the_list_it_came_from() {
    let keys = vec![Key::Int(-3), Key::Text("screenings/1".into())];
    let (first, _) = page("", &["ListScreenings", "state=CONFIRMED"]);
    let token = first.next_token(&keys);
    let (second, fine) = page(&token, &["ListScreenings", "state=CONFIRMED"]);
    assert!(fine);
    assert_eq!(second.after, Some(keys));
    assert!(!page(&token, &["ListScreenings", "state=PENDING"]).1);
    assert!(!page(&token, &["ListScreeningsstate=", "CONFIRMED"]).1);
    assert!(!page(&token[1..], &["ListScreenings", "state=CONFIRMED"]).1);
    assert!(!page("%%%", &["ListScreenings"]).1);
}

#[test]
fn sizes_are_coerced_or_refused() {
    let mut violations = Violations::new();
    assert_eq!(Page::decode(&mut violations, 0, "", &[], SHAPE).size, 50);
    assert_eq!(Page::decode(&mut violations, 7, "", &[], SHAPE).size, 7);
    assert_eq!(Page::decode(&mut violations, 100_000, "", &[], SHAPE).size, 1_000);
    assert!(violations.is_empty());
    Page::decode(&mut violations, -1, "", &[], SHAPE);
    assert!(!violations.is_empty());
}

#[test]
fn a_token_belongs_to_a_filter_in_whatever_form_it_is_typed() {
    let keys = vec![Key::Int(1), Key::Text("x".into())];
    let (first, _) = page("", &["ListHospitals", "display_name=\"한\""]);
    assert!(page(&first.next_token(&keys), &["ListHospitals", "display_name=\"\u{1112}\u{1161}\u{11AB}\""]).1);
}

/// A database of numbered requests, the newest last, whose notes have these lengths.
fn stored(lengths: &[usize]) -> Vec<(i64, CapacityRequest)> {
    let note = |length: &usize| "\u{1F600}".repeat(*length);
    let request = |length| CapacityRequest { justification: note(length), ..CapacityRequest::default() };
    (0..).zip(lengths.iter().map(request)).collect()
}

/// The answer of a list: the requested number of rows after the token, cut to one answer.
fn answer(stored: &[(i64, CapacityRequest)], page_size: i32, token: &str) -> ListCapacityRequestsResponse {
    let mut violations = Violations::new();
    let page = Page::decode(&mut violations, page_size, token, &["ListCapacityRequests"], &[KeyKind::Int]);
    violations.finish().unwrap();
    let after = page.after.as_ref().map_or(-1, |keys| if let Key::Int(last) = keys[0] { last } else { -1 });
    let rest: Vec<_> = stored.iter().filter(|(number, _)| *number > after).collect();
    let size = usize::try_from(page.size).unwrap();
    let rows = rest.iter().take(size).map(|(number, request)| (vec![Key::Int(*number)], request.clone()));
    let (capacity_requests, next_page_token) = page.fill(Rows::new(rows.collect(), rest.len() > size), |row| row);
    ListCapacityRequestsResponse { capacity_requests, next_page_token }
}

/// Reads every page; checks that no answer is too large and that only the last may be empty.
fn walk(stored: &[(i64, CapacityRequest)], page_size: i32) -> (Vec<CapacityRequest>, usize) {
    let (mut seen, mut pages, mut token) = (Vec::new(), 0, String::new());
    loop {
        let answer = answer(stored, page_size, &token);
        assert!(answer.encoded_len() <= MAX_BYTES, "{} bytes", answer.encoded_len());
        assert!(!answer.capacity_requests.is_empty() || answer.next_page_token.is_empty());
        pages += 1;
        seen.extend(answer.capacity_requests);
        if answer.next_page_token.is_empty() {
            return (seen, pages);
        }
        token = answer.next_page_token;
    }
}

#[test]
fn a_page_ends_before_it_is_too_large_and_the_next_goes_on_there() {
    // A thousand requests with 500 emoji in both texts once took 4 MiB in one answer.
    let all = stored(&[1_000; 1_000]);
    let (seen, pages) = walk(&all, 1_000);
    assert!(seen.iter().eq(all.iter().map(|(_, request)| request)));
    assert_eq!(pages, 4);
    assert_eq!(walk(&stored(&[10; 1_000]), 1_000).1, 1, "an ordinary page is not cut");
    let (seen, _) = walk(&stored(&[MAX_BYTES / 4 - 400; 3]), 1_000);
    assert_eq!(seen.len(), 3, "the first row of a page always fits");
    assert_eq!(walk(&[], 0), (Vec::new(), 1));
}

#[test]
fn a_page_that_is_full_of_rows_ends_there() {
    let all = stored(&[1; 20]);
    assert_eq!(walk(&all, 10).1, 2, "no empty page behind the last row");
    assert_eq!(answer(&all, 7, "").capacity_requests.len(), 7);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_row_is_given_once_whatever_the_sizes(
        lengths in proptest::collection::vec(prop_oneof![4 => 0..1_000_usize, 1 => 1_000..120_000_usize], 0..80),
        page_size in 1..60,
    ) {
        let all = stored(&lengths);
        let (seen, _) = walk(&all, page_size);
        prop_assert!(seen.iter().eq(all.iter().map(|(_, request)| request)));
    }
}
