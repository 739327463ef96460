// Package openapitest holds what the API answers against its OpenAPI document, in tests.
//
// It knows the document alone, neither routes nor handlers, and leaves the schemas to
// a library: what it finds, a client made from the document would find. A response
// schema is open in the document, so that clients bear with later fields; here it is
// closed, so that a field which the document lacks is a fault.
package openapitest
