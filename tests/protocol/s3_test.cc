// The signer against the examples of the service's API reference ("Signature Calculations for the
// Authorization Header"), and what is read and written beside requests.
#include <gtest/gtest.h>

#include "base/error.h"
#include "protocol/s3/account.h"
#include "protocol/s3/answers.h"
#include "protocol/s3/profile.h"
#include "protocol/s3/sign.h"
#include "protocol/s3/upload.h"

namespace cairn::s3 {
namespace {

const Credentials kExample{.access_key = "AKIAIOSFODNN7EXAMPLE",
                           .secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                           .session_token = {}};
constexpr char kWhen[] = "20130524T000000Z";
constexpr char kHost[] = "examplebucket.s3.amazonaws.com";

std::string signature_of(const SignedParts& request) {
  const std::string line = authorization(request, kExample, "us-east-1", kWhen);
  return line.substr(line.find("Signature=") + 10);
}

TEST(S3Sign, GetObject) {
  const std::string hash = sha256_of({});
  const SignedParts request{.method = "GET",
                            .path = "/test.txt",
                            .query = "",
                            .head = {{"host", kHost},
                                     {"range", "bytes=0-9"},
                                     {"x-amz-content-sha256", hash},
                                     {"x-amz-date", kWhen}},
                            .payload_hash = hash};
  EXPECT_EQ(authorization(request, kExample, "us-east-1", kWhen),
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
            "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
            "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

TEST(S3Sign, PutObject) {
  const std::string hash = sha256_of(bytes_of("Welcome to Amazon S3."));
  const std::string path = "/" + percent_encoded("test$file.text", true);
  EXPECT_EQ(path, "/test%24file.text");
  EXPECT_EQ(signature_of({.method = "PUT",
                          .path = path,
                          .query = "",
                          .head = {{"date", "Fri, 24 May 2013 00:00:00 GMT"},
                                   {"host", kHost},
                                   {"x-amz-content-sha256", hash},
                                   {"x-amz-date", kWhen},
                                   {"x-amz-storage-class", "REDUCED_REDUNDANCY"}},
                          .payload_hash = hash}),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

TEST(S3Sign, Queries) {
  const std::string hash = sha256_of({});
  const auto of = [&](const std::string& query) {
    return signature_of(
        {.method = "GET",
         .path = "/",
         .query = query,
         .head = {{"host", kHost}, {"x-amz-content-sha256", hash}, {"x-amz-date", kWhen}},
         .payload_hash = hash});
  };
  EXPECT_EQ(of(canonical_query({{"lifecycle", ""}})),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
  EXPECT_EQ(of(canonical_query({{"prefix", "J"}, {"max-keys", "2"}})),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
  EXPECT_EQ(canonical_query({{"uploadId", "2~a/b+="}, {"partNumber", "1"}}),
            "partNumber=1&uploadId=2~a%2Fb%2B%3D");
  EXPECT_EQ(timestamp(std::chrono::system_clock::from_time_t(1369353600)), kWhen);
}

TEST(S3Name, Parts) {
  const Place place = parse_name("s3://bucket/a dir/disk?x.raw?versionId=v~1");
  EXPECT_EQ(place.bucket, "bucket");
  EXPECT_EQ(place.key, "a dir/disk?x.raw");
  EXPECT_EQ(place.version, "v~1");
  EXPECT_EQ(name_of(place), "s3://bucket/a dir/disk?x.raw?versionId=v~1");
  EXPECT_THROW(parse_name("s3://bucket"), Error);
  EXPECT_THROW(parse_name("s3://bucket/"), Error);
}

TEST(S3Name, Urls) {
  const auto url = [](Place place) { return Account(std::move(place), kExample).url(); };
  const Place place{.bucket = "disks",
                    .key = "a b/../+=.raw",
                    .version = {},
                    .endpoint = {},
                    .region = "eu-west-1"};
  EXPECT_EQ(url(place), "https://disks.s3.eu-west-1.amazonaws.com/a%20b/../%2B%3D.raw");
  Place other = place;
  other.bucket = "my.disks";
  EXPECT_EQ(url(other), "https://s3.eu-west-1.amazonaws.com/my.disks/a%20b/../%2B%3D.raw");
  other = place;
  other.endpoint = "http://127.0.0.1:9000";
  other.version = "1/2";
  EXPECT_EQ(url(other), "http://127.0.0.1:9000/disks/a%20b/../%2B%3D.raw?versionId=1%2F2");
  other = place;
  other.region = "cn-north-1";
  EXPECT_EQ(url(other), "https://disks.s3.cn-north-1.amazonaws.com.cn/a%20b/../%2B%3D.raw");
  for (const char* bucket : {"ab", "a/b", "a\nbc", "a b"}) {
    other = place;
    other.bucket = bucket;
    EXPECT_THROW(url(other), Error) << bucket;
  }
}

TEST(S3Answers, Errors) {
  const auto error = parse_error(
      "<?xml version=\"1.0\"?><Error xmlns=\"x\"><Code>AuthorizationHeaderMalformed</Code>"
      "<Message>wrong\n&#27;region</Message><Region>eu-west-1</Region></Error>");
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, "AuthorizationHeaderMalformed");
  EXPECT_EQ(error->message, "wrong  region");
  EXPECT_EQ(error->region, "eu-west-1");
  EXPECT_FALSE(parse_error("<CompleteMultipartUploadResult/>"));
  EXPECT_FALSE(parse_error("<Error><Code>"));
  EXPECT_FALSE(parse_error(""));
}

TEST(S3Answers, Uploads) {
  EXPECT_EQ(parse_upload_id("<InitiateMultipartUploadResult><UploadId>2~x</UploadId>"
                            "</InitiateMultipartUploadResult>"),
            "2~x");
  EXPECT_FALSE(parse_upload_id("<InitiateMultipartUploadResult/>"));
  EXPECT_FALSE(parse_upload_id("<Other><UploadId>2~x</UploadId></Other>"));
  EXPECT_TRUE(is_completed("<x:CompleteMultipartUploadResult/>"));
  EXPECT_FALSE(is_completed("<Error/>"));
  const auto list = parse_part_list(
      "<ListPartsResult><IsTruncated>true</IsTruncated><Part><PartNumber>2</PartNumber>"
      "<ETag>&quot;a&quot;</ETag><Size>5</Size></Part></ListPartsResult>");
  ASSERT_TRUE(list);
  EXPECT_EQ(list->next, 2u);
  EXPECT_EQ(list->parts.at(2).etag, "\"a\"");
  EXPECT_EQ(list->parts.at(2).bytes, 5u);
  EXPECT_EQ(parse_part_list("<ListPartsResult/>")->next, 0u);
  for (const char* wrong :
       {"<Error/>", "<ListPartsResult><IsTruncated>true</IsTruncated></ListPartsResult>",
        "<ListPartsResult><Part><PartNumber>0</PartNumber><Size>5</Size></Part></ListPartsResult>",
        "<ListPartsResult><Part><PartNumber>1</PartNumber><Size>-5</Size></Part></ListPartsResult>",
        "<ListPartsResult><Part><PartNumber>1</PartNumber></Part></ListPartsResult>"})
    EXPECT_FALSE(parse_part_list(wrong)) << wrong;
  EXPECT_EQ(complete_document({"\"a\"", "b"}),
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>\"a\"</ETag></Part>"
            "<Part><PartNumber>2</PartNumber><ETag>b</ETag></Part></CompleteMultipartUpload>");
}

TEST(S3Profile, Sections) {
  constexpr char text[] =
      "# mine\n[default]\naws_access_key_id=A\n[profile work]\r\nAWS_Secret_Access_Key = b=c \r\n"
      "s3 =\n  region = nested\n; no\n[other\nx=y";
  bool found = false;
  EXPECT_EQ(parse_profile(text, "default", &found).at("aws_access_key_id"), "A");
  EXPECT_TRUE(found);
  const auto work = parse_profile(text, "work", &found);
  EXPECT_EQ(work.at("aws_secret_access_key"), "b=c");
  EXPECT_EQ(work.count("region"), 0U);
  found = false;
  EXPECT_TRUE(parse_profile(text, "none", &found).empty());
  EXPECT_FALSE(found);
}

TEST(S3Parts, GrowWithTheImage) {
  constexpr uint64_t kMiB = 1 << 20;
  EXPECT_EQ(part_bytes(0, 0), 8 * kMiB);
  EXPECT_EQ(part_bytes(256 * kMiB, 0), 8 * kMiB);
  EXPECT_EQ(part_bytes(257 * kMiB, 0), 16 * kMiB);
  EXPECT_EQ(part_bytes(uint64_t{1} << 40, 0), 117 * kMiB);
  EXPECT_EQ(part_bytes(kMiB, 5 * kMiB), 5 * kMiB);
  EXPECT_THROW(part_bytes(kMiB, kMiB), Error);
  EXPECT_THROW(part_bytes(uint64_t{1} << 40, 5 * kMiB), Error);
}

}  // namespace
}  // namespace cairn::s3
