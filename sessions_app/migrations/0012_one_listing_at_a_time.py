from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('sessions_app', '0011_review'),
    ]

    operations = [
        migrations.AddField(
            model_name='providerwatch',
            name='listing_until',
            field=models.DateTimeField(null=True),
        ),
    ]
