//! mypage
