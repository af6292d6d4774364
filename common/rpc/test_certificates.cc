#include "common/rpc/test_certificates.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include "common/base/check.h"

namespace tandem::rpc {
namespace {

std::string TextOf(BIO* bio) {
  char* bytes = nullptr;
  const long size = BIO_get_mem_data(bio, &bytes);
  std::string text(bytes, size);
  BIO_free(bio);
  return text;
}

BIO* BioOf(const std::string& text) {
  return BIO_new_mem_buf(text.data(), static_cast<int>(text.size()));
}

void AddExtension(X509* certificate, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, certificate, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
  TANDEM_CHECK(extension != nullptr);
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

void SetName(X509_NAME* to, const std::string& name) {
  X509_NAME_add_entry_by_txt(to, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(name.data()),
                             static_cast<int>(name.size()), -1, 0);
}

// Signs with the issuer's key and names it.
void Sign(X509* certificate, EVP_PKEY* own_key, const TestCertificate* issuer) {
  if (issuer == nullptr) {
    X509_set_issuer_name(certificate, X509_get_subject_name(certificate));
    TANDEM_CHECK(X509_sign(certificate, own_key, EVP_sha256()) != 0);
    return;
  }
  BIO* bio = BioOf(issuer->certificate);
  X509* issuer_certificate = PEM_read_bio_X509(bio, nullptr, nullptr, nullptr);
  BIO_free(bio);
  bio = BioOf(issuer->key);
  EVP_PKEY* issuer_key = PEM_read_bio_PrivateKey(bio, nullptr, nullptr, nullptr);
  BIO_free(bio);
  X509_set_issuer_name(certificate, X509_get_subject_name(issuer_certificate));
  TANDEM_CHECK(X509_sign(certificate, issuer_key, EVP_sha256()) != 0);
  X509_free(issuer_certificate);
  EVP_PKEY_free(issuer_key);
}

}  // namespace

TestCertificate MakeTestCertificate(const std::string& name, const TestCertificate* issuer,
                                    int seconds_valid) {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  TANDEM_CHECK(key != nullptr);
  X509* certificate = X509_new();
  X509_set_version(certificate, 2);
  int32_t serial = 0;
  RAND_bytes(reinterpret_cast<unsigned char*>(&serial), sizeof(serial));
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), serial & INT32_MAX);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
  X509_gmtime_adj(X509_getm_notAfter(certificate), seconds_valid);
  X509_set_pubkey(certificate, key);
  SetName(X509_get_subject_name(certificate), name);
  AddExtension(certificate, NID_basic_constraints, issuer == nullptr ? "CA:TRUE" : "CA:FALSE");
  AddExtension(certificate, NID_subject_alt_name, "DNS:" + name);
  Sign(certificate, key, issuer);

  TestCertificate result;
  BIO* bio = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(bio, certificate);
  result.certificate = TextOf(bio);
  bio = BIO_new(BIO_s_mem());
  PEM_write_bio_PrivateKey(bio, key, nullptr, nullptr, 0, nullptr, nullptr);
  result.key = TextOf(bio);
  X509_free(certificate);
  EVP_PKEY_free(key);
  return result;
}

}  // namespace tandem::rpc
