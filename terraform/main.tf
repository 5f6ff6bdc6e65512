locals {
  apis = concat(
    [
      "aiplatform.googleapis.com",
      "artifactregistry.googleapis.com",
      # Who has which rights in the project: this module sets it, `neumf preflight --online` reads it.
      "cloudresourcemanager.googleapis.com",
      "iam.googleapis.com",
      # Which APIs are enabled, and the quotas.
      "serviceusage.googleapis.com",
      "storage.googleapis.com",
    ],
    var.with_dataflow ? ["compute.googleapis.com", "dataflow.googleapis.com"] : [],
  )

  # Rules that delete what is below a folder after so many days.
  expiring = {
    for folder, days in {
      "runs/"        = var.days_to_keep_runs
      "checkpoints/" = var.days_to_keep_checkpoints
    } : folder => days if days > 0
  }
}

resource "google_project_service" "api" {
  for_each = toset(local.apis)

  project            = var.project
  service            = each.value
  disable_on_destroy = false
}

resource "google_storage_bucket" "artifacts" {
  project                     = var.project
  name                        = var.bucket
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false

  dynamic "lifecycle_rule" {
    for_each = local.expiring

    content {
      condition {
        age            = lifecycle_rule.value
        matches_prefix = [lifecycle_rule.key]
      }

      action {
        type = "Delete"
      }
    }
  }

  dynamic "encryption" {
    for_each = var.kms_key == null ? [] : [var.kms_key]

    content {
      default_kms_key_name = encryption.value
    }
  }

  depends_on = [google_project_service.api]
}

resource "google_artifact_registry_repository" "images" {
  project       = var.project
  location      = var.region
  repository_id = "${var.prefix}-images"
  description   = "Images of the pipeline's steps"
  format        = "DOCKER"
  kms_key_name  = var.kms_key

  docker_config {
    # A build moves the tag of the layers that the next one uses; pipelines name images by digest.
    immutable_tags = false
  }

  depends_on = [google_project_service.api]
}

resource "google_artifact_registry_repository" "pipelines" {
  project       = var.project
  location      = var.region
  repository_id = "${var.prefix}-pipelines"
  description   = "Compiled pipelines"
  format        = "KFP"
  kms_key_name  = var.kms_key

  depends_on = [google_project_service.api]
}

resource "google_vertex_ai_tensorboard" "training" {
  count = var.with_tensorboard ? 1 : 0

  project      = var.project
  region       = var.region
  display_name = "${var.prefix}-training"

  depends_on = [google_project_service.api]
}
