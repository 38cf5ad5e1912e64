from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('offers', '0005_listed_index'),
    ]

    operations = [
        migrations.AddField(
            model_name='providerinventory',
            name='maintenance_since',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name='providerinventory',
            name='maintenance_reason',
            field=models.CharField(blank=True, max_length=300),
        ),
        migrations.AddField(
            model_name='providerinventory',
            name='maintenance_by',
            field=models.CharField(blank=True, max_length=160),
        ),
    ]
