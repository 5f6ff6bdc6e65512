# Two accounts, three with Dataflow. The bucket and the repositories are granted by themselves, never for the project.

resource "google_service_account" "pipeline" {
  project      = var.project
  account_id   = "${var.prefix}-pipeline"
  display_name = "NeuMF pipeline: the steps, and what starts the training job"

  depends_on = [google_project_service.api]
}

resource "google_service_account" "train" {
  project      = var.project
  account_id   = "${var.prefix}-train"
  display_name = "NeuMF pipeline: the training job"

  depends_on = [google_project_service.api]
}

resource "google_service_account" "dataflow" {
  count = var.with_dataflow ? 1 : 0

  project      = var.project
  account_id   = "${var.prefix}-dataflow"
  display_name = "NeuMF pipeline: the workers of generate"

  depends_on = [google_project_service.api]
}

locals {
  pipeline = google_service_account.pipeline.member
  train    = google_service_account.train.member
  workers  = google_service_account.dataflow[*].member

  # Vertex AI grants no smaller role that starts a custom job.
  project_roles = merge(
    { "pipeline-aiplatform.user" = { role = "roles/aiplatform.user", member = local.pipeline } },
    var.with_tensorboard ? {
      "train-tensorboard" = { role = google_project_iam_custom_role.tensorboard[0].name, member = local.train }
    } : {},
    var.with_dataflow ? {
      "pipeline-dataflow.developer" = { role = "roles/dataflow.developer", member = local.pipeline }
      "dataflow-dataflow.worker"    = { role = "roles/dataflow.worker", member = local.workers[0] }
    } : {},
    { for member in var.submitters : "${member}-aiplatform.user" => { role = "roles/aiplatform.user", member = member } },
  )

  # What reads and writes artifacts.
  bucket_users = merge(
    { pipeline = local.pipeline, train = local.train },
    var.with_dataflow ? { dataflow = local.workers[0] } : {},
    { for member in var.submitters : member => member },
  )

  # What may act as which account.
  actors = merge(
    {
      "pipeline-train" = { account = google_service_account.train.name, member = local.pipeline }
      # `neumf submit` has one --service-account, which the training job then has too.
      "pipeline-pipeline" = { account = google_service_account.pipeline.name, member = local.pipeline }
    },
    var.with_dataflow ? {
      "pipeline-dataflow" = { account = google_service_account.dataflow[0].name, member = local.pipeline }
    } : {},
    {
      for member in var.submitters :
      "${member}-pipeline" => { account = google_service_account.pipeline.name, member = member }
    },
  )

  image_readers = merge(
    { pipeline = local.pipeline, train = local.train },
    var.with_dataflow ? { dataflow = local.workers[0] } : {},
    # `neumf preflight --online` looks whether the images are there.
    { for member in var.submitters : member => member },
  )
}

resource "google_project_iam_custom_role" "tensorboard" {
  count = var.with_tensorboard ? 1 : 0

  project = var.project
  role_id = "${replace(var.prefix, "-", "_")}_tensorboard_writer"
  title   = "NeuMF: write a TensorBoard"
  permissions = [
    "aiplatform.tensorboardExperiments.create",
    "aiplatform.tensorboardExperiments.get",
    "aiplatform.tensorboardExperiments.write",
    "aiplatform.tensorboardRuns.batchCreate",
    "aiplatform.tensorboardRuns.create",
    "aiplatform.tensorboardRuns.get",
    "aiplatform.tensorboardRuns.list",
    "aiplatform.tensorboardRuns.write",
    "aiplatform.tensorboardTimeSeries.batchCreate",
    "aiplatform.tensorboardTimeSeries.create",
    "aiplatform.tensorboardTimeSeries.get",
    "aiplatform.tensorboardTimeSeries.list",
    "aiplatform.tensorboards.get",
  ]

  depends_on = [google_project_service.api]
}

resource "google_project_iam_member" "project" {
  for_each = local.project_roles

  project = var.project
  role    = each.value.role
  member  = each.value.member

  depends_on = [google_project_service.api]
}

resource "google_storage_bucket_iam_member" "object_user" {
  for_each = local.bucket_users

  bucket = google_storage_bucket.artifacts.name
  role   = "roles/storage.objectUser"
  member = each.value
}

# Submitting looks at the bucket itself, its place among others.
resource "google_storage_bucket_iam_member" "bucket_viewer" {
  for_each = merge({ pipeline = local.pipeline }, { for member in var.submitters : member => member })

  bucket = google_storage_bucket.artifacts.name
  role   = "roles/storage.legacyBucketReader"
  member = each.value
}

resource "google_service_account_iam_member" "act_as" {
  for_each = local.actors

  service_account_id = each.value.account
  role               = "roles/iam.serviceAccountUser"
  member             = each.value.member
}

resource "google_artifact_registry_repository_iam_member" "image_reader" {
  for_each = local.image_readers

  project    = var.project
  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.reader"
  member     = each.value
}

resource "google_artifact_registry_repository_iam_member" "pipeline_reader" {
  for_each = merge({ pipeline = local.pipeline }, { for member in var.submitters : member => member })

  project    = var.project
  location   = google_artifact_registry_repository.pipelines.location
  repository = google_artifact_registry_repository.pipelines.name
  role       = "roles/artifactregistry.reader"
  member     = each.value
}

resource "google_artifact_registry_repository_iam_member" "image_writer" {
  for_each = var.image_publishers

  project    = var.project
  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.writer"
  member     = each.value
}

resource "google_artifact_registry_repository_iam_member" "pipeline_writer" {
  for_each = var.image_publishers

  project    = var.project
  location   = google_artifact_registry_repository.pipelines.location
  repository = google_artifact_registry_repository.pipelines.name
  role       = "roles/artifactregistry.writer"
  member     = each.value
}
