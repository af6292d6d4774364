#include "common/rpc/pem_files.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <cerrno>
#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace tandem::rpc {
namespace {

constexpr size_t kMaxPemBytes = 1 << 20;

template <auto Free>
struct Freer {
  template <class T>
  void operator()(T* object) const {
    Free(object);
  }
};
using Bio = std::unique_ptr<BIO, Freer<BIO_free>>;
using Certificate = std::unique_ptr<X509, Freer<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY_free>>;

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  const std::unique_ptr<FILE, Freer<fclose>> file(std::fopen(path.c_str(), "re"));
  if (file == nullptr) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  std::string text(kMaxPemBytes + 1, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file.get()));
  if (std::ferror(file.get()) != 0) {
    return absl::InvalidArgumentError(absl::StrCat("cannot read ", path, ": is it a file?"));
  }
  if (text.size() > kMaxPemBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is longer than ", kMaxPemBytes, " bytes: not a PEM file"));
  }
  return text;
}

Bio BioOf(const std::string& text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

// The first certificate in `text`, which must be valid now.
absl::StatusOr<Certificate> ParseCertificate(const std::string& path, const std::string& text) {
  Certificate certificate(PEM_read_bio_X509(BioOf(text).get(), nullptr, nullptr, nullptr));
  ERR_clear_error();
  if (certificate == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(path, " holds no certificate in PEM form"));
  }
  if (X509_cmp_current_time(X509_get0_notAfter(certificate.get())) < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the certificate in ", path, " has expired: get a new one"));
  }
  if (X509_cmp_current_time(X509_get0_notBefore(certificate.get())) > 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the certificate in ", path, " is not valid yet: is the clock of this machine right?"));
  }
  return certificate;
}

// A key with a passphrase is refused: nobody is there to be asked.
int NoPassphrase(char*, int, int, void*) { return -1; }

absl::Status CheckKey(const TlsFiles& files, const PemTexts& texts) {
  ASSIGN_OR_RETURN(const Certificate certificate,
                   ParseCertificate(files.certificate, texts.certificate));
  const Key key(PEM_read_bio_PrivateKey(BioOf(texts.key).get(), nullptr, NoPassphrase, nullptr));
  const bool is_pair = key != nullptr && X509_check_private_key(certificate.get(), key.get()) == 1;
  ERR_clear_error();
  if (key == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(files.key, " holds no private key in PEM form without a passphrase"));
  }
  if (!is_pair) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the key in ", files.key, " does not belong to the certificate in ", files.certificate));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PemTexts> ReadPemFiles(const TlsFiles& files) {
  if (files.certificate.empty() != files.key.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--tls-cert and --tls-key belong together: only ",
                     files.key.empty() ? "--tls-cert" : "--tls-key", " is given"));
  }
  PemTexts texts;
  if (!files.certificate.empty()) {
    ASSIGN_OR_RETURN(texts.certificate, ReadFile(files.certificate));
    ASSIGN_OR_RETURN(texts.key, ReadFile(files.key));
    RETURN_IF_ERROR(CheckKey(files, texts));
  }
  if (!files.ca.empty()) {
    ASSIGN_OR_RETURN(texts.ca, ReadFile(files.ca));
    RETURN_IF_ERROR(ParseCertificate(files.ca, texts.ca).status());
  }
  return texts;
}

}  // namespace tandem::rpc
