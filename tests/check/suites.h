/* tests/check/suites.h - the suites of kn_check, one file each: a new one is a line here. */
#define CHECK_SUITES(X) X(linear) X(conv) X(norm) X(element) X(layout) X(attention)
